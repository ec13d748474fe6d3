#include "tools/load_options.h"

#include <fmt/format.h>

#include "lib/base/error.h"

namespace moelora {
namespace {

template <class T>
std::optional<T> parsed(const std::string& flag, const std::string& text,
                        std::optional<T> (*parse)(std::string_view), const char* choices) {
  if (text.empty()) return std::nullopt;
  if (const auto value = parse(text)) return value;
  throw Error(flag, fmt::format("\"{}\" is none of {}", text, choices));
}

}  // namespace

std::optional<BOrder> StackedFlags::order(const std::string& flag) const {
  return parsed(flag, b_order, parse_b_order, "rank-major, expert-major");
}

std::optional<Roles> StackedFlags::role(const std::string& flag) const {
  return parsed(flag, roles, parse_roles, "natural, swapped");
}

LoadOptions LoadFlags::options() const {
  return {from, base, model_specs, {in.order("--b-order"), in.role("--roles")}, {ignore_zip_crc}};
}

void add_load_options(CLI::App& app, LoadFlags& flags) {
  app.add_option("--from", flags.from, "Layout of the input (default: detected)")
      ->type_name("LAYOUT");
  app.add_option("--base", flags.base, "Base model: folder, config.json or hub name")
      ->type_name("BASE");
  app.add_option("--model-spec", flags.model_specs,
                 "A model family to add (schemas/model_spec.schema.json)")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--b-order", flags.in.b_order,
                 "Columns of a stacked lora_B: rank-major (PEFT) or expert-major")
      ->type_name("ORDER");
  app.add_option("--roles", flags.in.roles,
                 "Side of a stacked lora_A: natural (input) or swapped (output)")
      ->type_name("ROLES");
}

void add_zip_flag(CLI::App& app, LoadFlags& flags) {
  app.add_flag("--ignore-zip-crc", flags.ignore_zip_crc,
               "Read a torch file though the checksum of a record differs");
}

}  // namespace moelora
