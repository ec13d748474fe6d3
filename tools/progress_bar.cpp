#include "tools/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

namespace moelora {
namespace {

constexpr std::chrono::milliseconds kSilent{1000}, kRedraw{100};
constexpr size_t kBarCells = 24;
constexpr std::string_view kCounted = " adapters";  // a stage that counts them, not bytes

}  // namespace

ProgressBar::ProgressBar(bool quiet) : shown_(!quiet && isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() { wipe(); }

JobControl shown_job(bool quiet) {
  const auto bar = std::make_shared<ProgressBar>(quiet);
  return {[bar](const Progress& progress) { bar->show(progress); }, {}};
}

void ProgressBar::show(const Progress& progress) {
  if (!shown_) return;
  const Clock::time_point now = Clock::now();
  if (stage_ != progress.stage) {
    wipe();
    stage_ = progress.stage;
    start_ = now;
    next_ = now + kSilent;
  }
  if (progress.done >= progress.total) return wipe();
  if (now < next_) return;
  next_ = now + kRedraw;
  drawn_ = true;
  const std::string text = line(stage_, progress.done, progress.total,
                                std::chrono::duration<double>(now - start_).count());
  std::fputs(("\r" + text + "\x1b[K").c_str(), stderr);
  std::fflush(stderr);
}

void ProgressBar::wipe() {
  if (!drawn_) return;
  drawn_ = false;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

std::string ProgressBar::line(std::string_view stage, uint64_t done, uint64_t total,
                              double seconds) {
  const double share =
      total == 0 ? 1.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const auto cells = static_cast<size_t>(share * static_cast<double>(kBarCells));
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const double left = rate > 0 ? (1 - share) * static_cast<double>(total) / rate : 0;
  if (stage.ends_with(kCounted))
    return fmt::format("{} {:3.0f}% [{}{}] {} of {}, {:.0f} s left", stage, share * 100,
                       std::string(cells, '#'), std::string(kBarCells - cells, ' '), done, total,
                       left);
  return fmt::format("{} {:3.0f}% [{}{}] {:.1f} of {:.1f} GB, {:.2f} GB/s, {:.0f} s left", stage,
                     share * 100, std::string(cells, '#'), std::string(kBarCells - cells, ' '),
                     static_cast<double>(done) * 1e-9, static_cast<double>(total) * 1e-9,
                     rate * 1e-9, left);
}

}  // namespace moelora
