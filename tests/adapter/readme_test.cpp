// The tables of REFERENCE.md are made from the library. MOELORA_UPDATE=1 writes them.

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include "lib/adapter/dialect.h"
#include "lib/adapter/layout.h"
#include "lib/model/base_model.h"
#include "lib/model/family.h"
#include "tests/adapter/readme_section.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

const fs::path kRoot = MOELORA_SOURCE_DIR;

std::vector<Json> json_files(const fs::path& folder) {
  std::set<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.insert(entry.path());
  std::vector<Json> out;
  for (const fs::path& path : paths) out.push_back(read_json_file(path.string()));
  return out;
}

// A | inside a cell would end it.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

std::string layout_table() {
  std::string out = "| layout | holds | names below `…experts.` | shapes |\n|---|---|---|---|\n";
  for (const Layout* layout : all_layouts())
    out += fmt::format("| `{}` | {} | {} | {} |\n", layout->id, cell(layout->summary),
                       cell(layout->names), cell(layout->shapes));
  return out;
}

std::string dialect_table() {
  std::string out =
      "| dialect | of | names | shapes | what becomes of it |\n|---|---|---|---|---|\n";
  for (const Dialect* dialect : all_dialects())
    out += fmt::format("| `{}` | {} | {} | {} | {} |\n", dialect->id, dialect->whose,
                       cell(dialect->names), cell(dialect->shapes),
                       dialect->write != nullptr  ? "read and written"
                       : dialect->read != nullptr ? "read"
                                                  : "refused: " + cell(dialect->advice));
  return out;
}

std::string storage_text(const ExpertStorage& s, const Renames& renames = {}) {
  std::vector<std::string> names;
  for (const std::string& name : {s.gate, s.up, s.gate_up, s.down})
    if (!name.empty()) names.push_back(name);
  constexpr std::array<std::string_view, 3> kAxes = {"[E, in, out]", "[E, out, in]", "[E*I, H]"};
  const std::string_view axes = kAxes[static_cast<size_t>(s.axes)];
  return fmt::format("`{}.{}{}`{}", renamed(s.stem, renames), s.numbered ? "{e}." : "",
                     cell(fmt::format("{}", fmt::join(names, "|"))),
                     s.numbered ? "" : fmt::format(" {}", axes));
}

// First names of the built-in models of each model_type, sorted.
std::map<std::string, std::set<std::string>> builtins() {
  std::map<std::string, std::set<std::string>> out;
  for (const Json& file : json_files(kRoot / "schemas/builtin_models"))
    for (const Json& name : file.find("names")->items())
      out[file.find("config")->find("model_type")->as_string()].insert(name.as_string());
  return out;
}

const char* order_text(const Family& family) {
  if (family.hub_experts.order == GateUpOrder::interleaved)
    return "halves; interleaved in hub files";
  if (!family.gate_up_order) return "unknown";
  return family.gate_up_order == GateUpOrder::interleaved ? "interleaved" : "halves";
}

// "`ffn.experts.expert_{e}.fc1\|fc2`" of each block of experts that are Linears; "none" without.
std::string linear_experts_text(const Family& family) {
  std::vector<std::string> out;
  for (const LayerStack& stack : family.stacks)
    for (const ModuleBlock& block : stack.blocks) {
      if (block.role != Role::expert) continue;
      std::vector<std::string> names;
      for (const auto& linear : block.linears) names.push_back(linear.name);
      std::string path = block.path;
      path.replace(path.find("{expert}"), 8, "{e}");
      path = fmt::format("`{}.{}`", path, cell(fmt::format("{}", fmt::join(names, "|"))));
      if (std::find(out.begin(), out.end(), path) == out.end()) out.push_back(path);
    }
  return out.empty() ? "none" : fmt::format("{}", fmt::join(out, ", "));
}

std::string family_row(const Family& family,
                       const std::map<std::string, std::set<std::string>>& known) {
  std::vector<std::string> types, models;
  for (const Variant& variant : family.variants) {
    types.push_back(variant.only.empty() ? variant.model_type
                                         : fmt::format("{} of {}", variant.model_type,
                                                       fmt::join(variant.only, " and ")));
    if (const auto it = known.find(types.back()); it != known.end())
      models.insert(models.end(), it->second.begin(), it->second.end());
  }
  std::sort(types.begin(), types.end());
  if (!family.from_loaders.empty())
    types.back() += fmt::format(" (*from loaders: {}*)", family.from_loaders);
  if (!family.has_experts) {
    const std::string experts = linear_experts_text(family);
    return fmt::format("| {} | {} | {} | | {} |\n", fmt::join(types, ", "), experts, experts,
                       fmt::join(models, ", "));
  }
  return fmt::format("| {} | {} | {} | {} | {} |\n", fmt::join(types, ", "),
                     storage_text(family.hub_experts, family.hub_names),
                     storage_text(family.memory_experts), order_text(family),
                     fmt::join(models, ", "));
}

std::string family_table() {
  std::string out =
      "| model_type | experts in hub files | experts in transformers 5 | gate, up rows | built-in "
      "names for `--base` |\n|---|---|---|---|---|\n";
  const auto known = builtins();
  for (const Json& json : json_files(kRoot / "schemas/models"))
    out += family_row(parse_family(json, "schemas/models"), known);
  return out;
}

}  // namespace

TEST_CASE("REFERENCE.md lists every layout") { check_reference_section("layouts", layout_table()); }

TEST_CASE("REFERENCE.md lists every dialect") {
  check_reference_section("dialects", dialect_table());
}

TEST_CASE("REFERENCE.md lists every model family") {
  check_reference_section("families", family_table());
}
