#include "tools/progress_bar.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

using namespace moelora;

namespace {

// Stderr as a terminal (or a pipe) that remembers what was written to it.
class StderrAs {
 public:
  explicit StderrAs(bool terminal) : saved_(dup(STDERR_FILENO)) {
    int ends[2] = {-1, -1};
    if (terminal) {
      read_ = posix_openpt(O_RDWR | O_NOCTTY);
      grantpt(read_);
      unlockpt(read_);
      ends[1] = open(ptsname(read_), O_RDWR | O_NOCTTY);
    } else {
      REQUIRE(pipe(ends) == 0);
      read_ = ends[0];
    }
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    fcntl(read_, F_SETFL, O_NONBLOCK);
  }
  ~StderrAs() {
    dup2(saved_, STDERR_FILENO);
    close(saved_);
    close(read_);
  }
  std::string text() const {
    std::string out;
    char some[4096];
    for (ssize_t n = 0; (n = read(read_, some, sizeof some)) > 0;)
      out.append(some, static_cast<size_t>(n));
    return out;
  }

 private:
  int saved_, read_ = -1;
};

std::string shown(bool terminal, bool quiet, int milliseconds) {
  const StderrAs stderr_as(terminal);
  {
    ProgressBar bar(quiet);
    for (int i = 0; i < milliseconds / 10; ++i) {
      bar.show({"work", static_cast<uint64_t>(i), 1000});
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  return stderr_as.text();
}

size_t redraws(const std::string& text) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find("work", at)) != std::string::npos; ++at) ++n;
  return n;
}

}  // namespace

TEST_CASE("work of more than a second shows its progress on a terminal, and wipes it") {
  const auto start = std::chrono::steady_clock::now();
  const std::string text = shown(true, false, 1500);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  CHECK(redraws(text) >= 1);
  CHECK(static_cast<double>(redraws(text)) <= (took.count() - 1) * 10 + 2);  // 10 a second
  CHECK(text.ends_with("\r\x1b[K"));
}

TEST_CASE("work of which nobody knows how much it is shows that it goes on, without being told") {
  const StderrAs stderr_as(true);
  {
    const JobControl job = shown_job(false);
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    CHECK(stderr_as.text().find("\rreading: 0.0 GB read, 1 s\x1b[K") != std::string::npos);
    job.progress({"planning", 0, 0});
    CHECK(stderr_as.text() == "\r\x1b[K");
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    CHECK(stderr_as.text().find("\rplanning: 0.0 GB read, 1 s\x1b[K") != std::string::npos);
    hide_progress();
    CHECK(stderr_as.text() == "\r\x1b[K");
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    CHECK(stderr_as.text() == "");
  }
  CHECK(stderr_as.text() == "");
}

TEST_CASE("nothing is shown of short work, when quiet, or where stderr is no terminal") {
  CHECK(shown(true, false, 20) == "");
  CHECK(shown(true, true, 1200) == "");
  CHECK(shown(false, false, 1200) == "");
  const StderrAs pipe(false);
  const JobControl job = shown_job(false);
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  CHECK(pipe.text() == "");
}

TEST_CASE("the bar of a stage that ends is wiped before anything else is printed") {
  const StderrAs stderr_as(true);
  const JobControl job = shown_job(false);
  job.progress({"work", 0, 10});
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  job.progress({"work", 5, 10});
  CHECK(redraws(stderr_as.text()) == 1);
  job.progress({"work", 10, 10});
  CHECK(stderr_as.text() == "\r\x1b[K");
}

TEST_CASE("the line says how much, how fast and how long") {
  CHECK(ProgressBar::line("converting", 1'200'000'000, 2'400'000'000, 2) ==
        "converting  50% [############            ] 1.2 of 2.4 GB, 0.60 GB/s, 2 s left");
  CHECK(ProgressBar::line("x", 0, 0, 0) ==
        "x 100% [########################] 0.0 of 0.0 GB, 0.00 GB/s, 0 s left");
  CHECK(ProgressBar::line_without_total("planning", 3'210'000'000, 12.3) ==
        "planning: 3.2 GB read, 12 s");
  CHECK(ProgressBar::line("x", 5, 3, 1).starts_with("x 100% [########################]"));
  CHECK(ProgressBar::line("checking adapters", 250, 1000, 2) ==
        "checking adapters  25% [######                  ] 250 of 1000, 6 s left");
}
