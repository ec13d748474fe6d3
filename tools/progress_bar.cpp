#include "tools/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <system_error>
#include <vector>

#include "lib/io/read_count.h"

namespace moelora {
namespace {

constexpr std::chrono::milliseconds kSilent{1000}, kRedraw{100}, kBeat{200};
constexpr size_t kBarCells = 24;
constexpr std::string_view kCounted = " adapters";  // a stage that counts them, not bytes

struct Bars {
  std::mutex mutex;
  std::vector<ProgressBar*> alive;
};

Bars& bars() {
  static auto* all = new Bars;
  return *all;
}

}  // namespace

ProgressBar::ProgressBar(bool quiet) : shown_(!quiet && isatty(STDERR_FILENO) == 1) {
  if (!shown_) return;
  hide_progress();
  begin("reading", false);
  {
    const std::lock_guard lock(bars().mutex);
    bars().alive.push_back(this);
  }
  try {
    beating_ = std::thread([this] { beat(); });
  } catch (const std::system_error&) {  // no thread to be had: stages with a total are shown
  }
}

ProgressBar::~ProgressBar() {
  if (!shown_) return;
  {
    const std::lock_guard lock(bars().mutex);
    std::erase(bars().alive, this);
  }
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  ended_.notify_all();
  if (beating_.joinable()) beating_.join();
  wipe();
}

JobControl shown_job(bool quiet) {
  const auto bar = std::make_shared<ProgressBar>(quiet);
  return {[bar](const Progress& progress) { bar->show(progress); }, {}};
}

void hide_progress() {
  const std::lock_guard lock(bars().mutex);
  for (ProgressBar* bar : bars().alive) bar->hide();
}

void ProgressBar::show(const Progress& progress) {
  if (!shown_) return;
  const std::lock_guard lock(mutex_);
  hidden_ = false;
  const bool has_total = progress.total > 0;
  if (stage_ != progress.stage || has_total_ != has_total) {
    wipe();
    begin(progress.stage, has_total);
  }
  if (!has_total) return;
  if (progress.done >= progress.total) {
    wipe();
    begin("finishing", false);
    return;
  }
  const Clock::time_point now = Clock::now();
  if (now >= next_) draw(line(stage_, progress.done, progress.total, seconds(now)), now);
}

void ProgressBar::hide() {
  const std::lock_guard lock(mutex_);
  wipe();
  hidden_ = true;
}

void ProgressBar::beat() {
  std::unique_lock lock(mutex_);
  while (!ended_.wait_for(lock, kBeat, [&] { return ends_; })) {
    const Clock::time_point now = Clock::now();
    if (hidden_ || has_total_ || now < next_) continue;
    draw(line_without_total(stage_, bytes_read() - read_, seconds(now)), now);
  }
}

void ProgressBar::begin(std::string_view stage, bool has_total) {
  stage_ = stage;
  has_total_ = has_total;
  read_ = bytes_read();
  start_ = Clock::now();
  next_ = start_ + kSilent;
}

void ProgressBar::draw(const std::string& text, Clock::time_point now) {
  next_ = now + kRedraw;
  drawn_ = true;
  std::fputs(("\r" + text + "\x1b[K").c_str(), stderr);
  std::fflush(stderr);
}

void ProgressBar::wipe() {
  if (!drawn_) return;
  drawn_ = false;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

double ProgressBar::seconds(Clock::time_point now) const {
  return std::chrono::duration<double>(now - start_).count();
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

std::string ProgressBar::line_without_total(std::string_view stage, uint64_t read, double seconds) {
  return fmt::format("{}: {:.1f} GB read, {:.0f} s", stage, static_cast<double>(read) * 1e-9,
                     seconds);
}

}  // namespace moelora
