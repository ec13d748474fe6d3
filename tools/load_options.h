#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/adapter_file.h"
#include "tools/tool.h"

namespace moelora {

// --b-order and --roles: what the user says about a stacked side.
struct StackedFlags {
  std::string b_order, roles;

  // The order and the roles; Error at the flag for an unknown word.
  std::optional<BOrder> order(const std::string& flag = "--b-order") const;
  std::optional<Roles> role(const std::string& flag = "--roles") const;
};

// How an adapter is to be read: --from, --base, --no-follow-base, --follow-links, --model-spec,
// --b-order, --roles,
// --ignore-zip-crc.
struct LoadFlags {
  std::string path, from, base;
  std::vector<std::string> model_specs;
  StackedFlags in;
  bool ignore_zip_crc = false, no_follow = false, follow_links = false;

  std::vector<std::string> inputs() const;  // all that it names, for open_output

  LoadOptions options() const;
};

// Types of options with the words they take, as --help shows them and shells complete them.
std::string order_type();
std::string roles_type();
std::string layout_type(std::initializer_list<std::string_view> others = {});  // and these

void add_load_options(CLI::App& app, LoadFlags& flags);
void add_zip_flag(CLI::App& app, LoadFlags& flags);  // --ignore-zip-crc
void add_links_flag(CLI::App& app, bool& follow);    // --follow-links

inline Links links_of(bool follow) { return follow ? Links::all : Links::within; }

}  // namespace moelora
