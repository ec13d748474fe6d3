#include "tools/load_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <array>

#include "lib/adapter/layout.h"
#include "lib/base/nearest.h"

namespace moelora {
namespace {

constexpr std::array<std::string_view, 2> kOrders = {"rank-major", "expert-major"};
constexpr std::array<std::string_view, 2> kRoles = {"natural", "swapped"};

template <class T>
std::optional<T> parsed(const std::string& flag, const std::string& text, std::string_view kind,
                        std::optional<T> (*parse)(std::string_view),
                        std::array<std::string_view, 2> choices) {
  if (text.empty()) return std::nullopt;
  if (const auto value = parse(text)) return value;
  throw unknown_word({{}, 0, 0, flag, {}}, kind, text, choices);
}

}  // namespace

std::optional<BOrder> StackedFlags::order(const std::string& flag) const {
  return parsed(flag, b_order, "order", parse_b_order, kOrders);
}

std::optional<Roles> StackedFlags::role(const std::string& flag) const {
  return parsed(flag, roles, "role", parse_roles, kRoles);
}

std::string order_type() { return fmt::format("ORDER:{{{}}}", fmt::join(kOrders, ",")); }
std::string roles_type() { return fmt::format("ROLES:{{{}}}", fmt::join(kRoles, ",")); }

std::string layout_type(std::initializer_list<std::string_view> others) {
  std::vector<std::string_view> words;
  for (const Layout* layout : all_layouts()) words.push_back(layout->id);
  words.insert(words.end(), others);
  return fmt::format("LAYOUT:{{{}}}", fmt::join(words, ","));
}

LoadOptions LoadFlags::options() const {
  return {from,
          base,
          model_specs,
          !no_follow,
          {in.order(), in.role()},
          ignore_zip_crc,
          links_of(follow_links),
          {}};
}

std::vector<std::string> LoadFlags::inputs() const {
  std::vector<std::string> out = model_specs;
  for (const std::string& named : {path, base})
    if (!named.empty()) out.push_back(named);
  return out;
}

void add_load_options(CLI::App& app, LoadFlags& flags) {
  app.add_option("--from", flags.from, "Layout or dialect of the input (default: detected)")
      ->type_name("LAYOUT");
  app.add_option("--base", flags.base, "Base model: folder, config.json or hub name")
      ->type_name("BASE");
  app.add_flag("--no-follow-base", flags.no_follow,
               "Look into no folder that base_model_name_or_path names");
  add_links_flag(app, flags.follow_links);
  app.add_option("--model-spec", flags.model_specs,
                 "A model family to add (schemas/model_spec.schema.json)")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--b-order", flags.in.b_order,
                 "Columns of a stacked lora_B: rank-major (PEFT) or expert-major")
      ->type_name(order_type());
  app.add_option("--roles", flags.in.roles,
                 "Side of a stacked lora_A: natural (input) or swapped (output)")
      ->type_name(roles_type());
}

void add_links_flag(CLI::App& app, bool& follow) {
  app.add_flag("--follow-links", follow,
               "Read weights and configs that are links out of the folder they are in");
}

void add_zip_flag(CLI::App& app, LoadFlags& flags) {
  app.add_flag("--ignore-zip-crc", flags.ignore_zip_crc,
               "Read a torch file though the checksum of a record differs");
}

}  // namespace moelora
