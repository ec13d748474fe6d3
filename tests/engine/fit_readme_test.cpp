// The tables of --for and --to in REFERENCE.md are made from the library. MOELORA_UPDATE=1 writes
// them.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/buffers.h"
#include "lib/engine/fit/step.h"
#include "tests/adapter/readme_section.h"

using namespace moelora;

namespace {

// A repair and the engines it is for. Two of one name may differ in what they do.
struct Repair {
  std::string_view name, summary;
  std::vector<std::string_view> engines;
};

std::vector<Repair> repairs() {
  std::vector<Repair> out;
  for (const Engine* engine : all_engines())
    for (const fit::FitStep* step : engine->fit->steps) {
      auto known = std::find_if(out.begin(), out.end(),
                                [&](const Repair& row) { return row.summary == step->summary; });
      if (known == out.end()) known = out.insert(known, {step->name, step->summary, {}});
      known->engines.push_back(engine->id);
    }
  return out;
}

}  // namespace

TEST_CASE("REFERENCE.md lists every repair") {
  std::string out = "| repair | for | what is repaired, and how |\n|---|---|---|\n";
  for (const Repair& row : repairs())
    out += fmt::format("| {} | {} | {} |\n", row.name, fmt::join(row.engines, ", "), row.summary);
  check_reference_section("repairs", out);
}

TEST_CASE("REFERENCE.md lists which layout an engine gets") {
  std::string out = "| engine | base and options | layout | because |\n|---|---|---|---|\n";
  for (const Engine* engine : all_engines())
    for (const LayoutChoice& row : engine->fit->layouts)
      out +=
          fmt::format("| {} | {} | `{}` | {} |\n", engine->id, row.when, row.layout->id, row.why);
  check_reference_section("layout choices", out);
}

TEST_CASE("REFERENCE.md lists what a server holds") {
  std::string out = "| --to | of | names | shapes |\n|---|---|---|---|\n";
  for (const Engine* engine : all_engines())
    if (const BufferForm* form = engine->buffers)
      out +=
          fmt::format("| `{}` | {} | {} | {} |\n", form->id, engine->id, form->names, form->shapes);
  check_reference_section("buffers", out);
}
