#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/engine/engine.h"

using namespace moelora;

TEST_CASE("versions sort by number, an rc before its release, dates by day") {
  CHECK(compare_versions("0.5.9", "0.5.10") < 0);
  CHECK(compare_versions("0.5.10rc0", "0.5.10") < 0);
  CHECK(compare_versions("0.5.10rc0", "0.5.10rc1") < 0);
  CHECK(compare_versions("0.5.9", "0.5.10rc0") < 0);
  CHECK(compare_versions("0.22", "0.22.0") == 0);
  CHECK(compare_versions("0.22.1", "0.22") > 0);
  CHECK(compare_versions("2025-11-30", "2025-12-31") < 0);
}

TEST_CASE("a version has what came with a release; a date compares with the release's date") {
  const Release release{"0.27", "2026-08-04"};
  CHECK(EngineVersion::parse("0.27")->has(release));
  CHECK(EngineVersion::parse("0.27.1")->has(release));
  CHECK_FALSE(EngineVersion::parse("0.26.3")->has(release));
  CHECK(EngineVersion::parse("2026-08-04")->has(release));
  CHECK_FALSE(EngineVersion::parse("2026-08-03")->has(release));
  for (const char* wrong : {"", "new", "0..1", "1.2.3.4.5", "0.5rc", "2026-8-4", "-1"})
    CHECK_FALSE(EngineVersion::parse(wrong));
}

TEST_CASE("an engine is named with or without a version") {
  CHECK(parse_engine("peft").label() == "peft@0.21");
  CHECK(parse_engine("peft@0.18").label() == "peft@0.18");
  CHECK_THROWS_AS(parse_engine("peft@x"), Error);
  CHECK_THROWS_AS(parse_engine("tensorrt"), Error);
  CHECK_THROWS_AS(parse_engine(""), Error);
}

TEST_CASE("releases are listed oldest first and the newest with an oracle is one of them") {
  for (const Engine* engine : all_engines()) {
    CAPTURE(engine->id);
    for (size_t i = 1; i < engine->releases.size(); ++i) {
      CHECK(engine->releases[i - 1].date <= engine->releases[i].date);
      CHECK(compare_versions(engine->releases[i - 1].version, engine->releases[i].version) < 0);
    }
    CHECK_NOTHROW(engine->release(engine->newest));
  }
}
