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
  const Release release{"0.27", "2026-08-10"};
  CHECK(EngineVersion::parse("0.27")->has(release));
  CHECK(EngineVersion::parse("0.27.1")->has(release));
  CHECK_FALSE(EngineVersion::parse("0.26.3")->has(release));
  CHECK(EngineVersion::parse("2026-08-10")->has(release));
  CHECK_FALSE(EngineVersion::parse("2026-08-03")->has(release));
  for (const char* wrong : {"", "new", "0..1", "1.2.3.4.5", "0.5rc", "2026-8-4", "-1"})
    CHECK_FALSE(EngineVersion::parse(wrong));
}

TEST_CASE("versions are taken as people have them") {
  const Release release{"0.23", "2026-06-10"}, next{"0.23.1", "2026-06-20"};
  const auto has = [&](const char* version, const Release& wanted) {
    CAPTURE(version);
    const auto parsed = EngineVersion::parse(version);
    REQUIRE(parsed);
    return parsed->has(wanted);
  };
  CHECK(EngineVersion::parse("v0.22.1")->text() == "0.22.1");
  for (const char* with :
       {"v0.23", "0.23.0+cu129", "0.23.0.post1", "0.23.1rc1.dev1403", "0.23.1rc1.dev1403+g0123abc",
        "0.23.1.dev5", "main", "nightly", "2026-06", "2026-12"})
    CHECK(has(with, release));
  for (const char* without :
       {"v0.22.1", "0.23rc1", "0.23.0rc2", "0.23a1", "0.23.0.dev7", "2026-05"})
    CHECK_FALSE(has(without, release));
  for (const char* without : {"0.23.1rc1.dev1403", "0.23.1rc1", "0.23.1.dev5", "0.23.0.post1"})
    CHECK_FALSE(has(without, next));
  CHECK(EngineVersion::parse("0.23.1rc1.dev1403")->is_development());
  CHECK_FALSE(EngineVersion::parse("0.23.1rc1")->is_development());
  CHECK(compare_versions("0.23.1rc1.dev2", "0.23.1rc1") < 0);
  CHECK(compare_versions("0.23.1.dev2", "0.23.1a1") < 0);
  CHECK(compare_versions("0.23.1a1", "0.23.1b1") < 0);
  CHECK(compare_versions("0.23.1b1", "0.23.1rc0") < 0);
  CHECK(compare_versions("0.23.1", "0.23.1.post1") < 0);
  CHECK(EngineVersion::parse("main")->is_after("2026-11-21"));
  for (const char* text : {"2026-13", "2026-00", "2026-02-30", "2026-11-00"}) {
    CAPTURE(text);
    CHECK_FALSE(EngineVersion::parse(text));
  }
  CHECK(EngineVersion::parse("2028-02-29"));
  CHECK(EngineVersion::parse("2026-12")->is_after("2026-11-21"));
  CHECK_FALSE(EngineVersion::parse("2026-11")->is_after("2026-11-21"));
  CHECK(EngineVersion::parse("2026-11-22")->is_after("2026-11-21"));
  for (const char* wrong : {"v", "vnew", "0.23rc", "0.23dev", "rc1", "0.23.post", "main2"})
    CHECK_FALSE(EngineVersion::parse(wrong));
}

TEST_CASE("an engine is named with or without a version") {
  CHECK(parse_engine("peft").label() == "peft@0.21.2");
  CHECK(parse_engine("peft@0.18").label() == "peft@0.18");
  CHECK(parse_engine("vllm@v0.22.1").label() == "vllm@0.22.1");
  CHECK(parse_engine("vllm@2026-05").label() == "vllm@2026-05");
  CHECK(parse_engine("vllm@latest").label() == parse_engine("vllm").label());
  CHECK_THROWS_AS(parse_engine("peft@x"), Error);
  CHECK_THROWS_AS(parse_engine("tensorrt"), Error);
  CHECK_THROWS_AS(parse_engine(""), Error);
}

TEST_CASE("releases are listed oldest first, and the last is the default") {
  for (const Engine* engine : all_engines()) {
    CAPTURE(engine->id);
    for (size_t i = 1; i < engine->releases.size(); ++i) {
      CHECK(engine->releases[i - 1].date <= engine->releases[i].date);
      CHECK(compare_versions(engine->releases[i - 1].version, engine->releases[i].version) < 0);
    }
    // A release that changes nothing is one line there.
    CHECK(engine->newest == engine->releases.back().version);
    CHECK(engine->known_to >= engine->releases.back().date);
  }
}
