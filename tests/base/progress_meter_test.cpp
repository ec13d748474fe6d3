#include "lib/base/progress_meter.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "lib/base/parallel.h"

namespace moelora {

TEST_CASE("A stage reports its progress, and its end once whatever the number of threads") {
  std::vector<uint64_t> done;
  JobControl job;
  job.progress = [&](const Progress& progress) {
    CHECK(progress.stage == "writing");
    CHECK(progress.total == 1000);
    done.push_back(progress.done);
  };
  ProgressMeter meter("writing", 1000, job);
  parallel_for(100, 4, [&](int64_t, int) { meter.add(10); });
  REQUIRE(!done.empty());
  CHECK(done.back() == 1000);
  CHECK(done.size() < 100);  // at most 20 a second, and the last
}

TEST_CASE("A job that is cancelled ends where it counts") {
  int asked = 0;
  JobControl job;
  job.cancelled = [&] { return ++asked == 3; };
  ProgressMeter meter("writing", 100, job);
  meter.add(1);
  meter.add(1);
  CHECK_THROWS_AS(meter.add(1), Cancelled);
  CHECK(std::string(Cancelled().what()) == "cancelled");
}

TEST_CASE("Without callbacks a job is only counted") {
  begin_stage("planning", {});
  ProgressMeter meter("writing", 1, {});
  meter.add(1);
  JobControl().check();
}

}  // namespace moelora
