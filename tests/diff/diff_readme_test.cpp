// The tables of lora-diff in REFERENCE.md are made from the library. MOELORA_UPDATE=1 writes them.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/diff/comparison.h"
#include "lib/diff/logprob_format.h"
#include "tests/adapter/readme_section.h"

using namespace moelora;

TEST_CASE("REFERENCE.md lists every format of log-probabilities") {
  std::string out = "| format | what it reads |\n|---|---|\n";
  for (const LogprobFormat* format : all_logprob_formats())
    out += fmt::format("| `{}` | {} |\n", format->id, format->summary);
  check_reference_section("logprob formats", out);
}

TEST_CASE("REFERENCE.md lists every preset") {
  std::string out = "| preset | at most | source |\n|---|---|---|\n";
  for (const Preset& preset : all_presets())
    out += fmt::format("| `{}` | `{}` {:g} | {} |\n", preset.name, preset.metric, preset.most,
                       preset.source);
  check_reference_section("presets", out);
}
