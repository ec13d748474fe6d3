// The tables of lora-diff in REFERENCE.md are made from the library. MOELORA_UPDATE=1 writes them.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/diff/comparison.h"
#include "lib/diff/logprob_format.h"
#include "lib/diff/score_file.h"
#include "tests/adapter/readme_section.h"

using namespace moelora;

TEST_CASE("REFERENCE.md lists every format of log-probabilities") {
  std::string out = "| format | what it reads |\n|---|---|\n";
  for (const LogprobFormat* format : all_logprob_formats())
    out += fmt::format("| `{}` | {} |\n", format->id, format->summary);
  check_reference_section("logprob formats", out);
}

TEST_CASE("REFERENCE.md lists every kind of file that scores are written as") {
  const auto yes = [](bool has) { return has ? "yes" : ""; };
  std::string out =
      "| file | what is in it | mask | prompts' lengths | best tokens |\n|---|---|---|---|---|\n";
  for (const ScoreWriter& writer : all_score_writers())
    out += fmt::format("| `{}` | {} | {} | {} | {} |\n", writer.ending, writer.summary,
                       yes(writer.has_mask), yes(writer.has_prompt), yes(writer.has_top));
  check_reference_section("score writers", out);
}

TEST_CASE("REFERENCE.md lists every preset") {
  std::string out = "| preset | at most | source |\n|---|---|---|\n";
  for (const Preset& preset : all_presets())
    out += fmt::format("| `{}` | `{}` {:g} | {} |\n", preset.name, preset.metric, preset.most,
                       preset.source);
  check_reference_section("presets", out);
}
