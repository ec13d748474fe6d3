#include "lib/check/project.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <initializer_list>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/json.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

// Reads one value after the other, each error at its line.
class Reader {
 public:
  explicit Reader(std::string path) : path_(std::move(path)) {}

  Project read() const {
    const Json file = read_json_file(path_);
    expect_object(file, "the file", {"$schema", "base", "engines", "server_options", "ignore"});
    Project out;
    if (const Json* base = file.find("base")) out.base = base_path(text(*base, "base"));
    if (const Json* engines = file.find("engines"))
      for (const Json& engine : items(*engines, "engines"))
        out.engines.push_back(text(engine, "an engine"));
    if (const Json* options = file.find("server_options")) out.server_options = pairs(*options);
    if (const Json* ignores = file.find("ignore"))
      for (const Json& ignore : items(*ignores, "ignore")) out.waivers.push_back(waiver(ignore));
    return out;
  }

 private:
  Location at(const Json& json) const { return place_of(json, path_); }

  void expect_object(const Json& json, const char* what,
                     std::initializer_list<std::string_view> keys) const {
    if (!json.is(Json::Kind::object))
      throw Error(at(json), fmt::format("{} is {}, not an object", what, json.kind_name()));
    for (const auto& [key, value] : json.members())
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        throw Error(at(value), fmt::format("{} is no key of {}", moelora::quoted(key), what),
                    fmt::format("known keys: {}", fmt::join(keys, ", ")));
  }

  std::string text(const Json& json, const char* what) const {
    if (!json.is(Json::Kind::string))
      throw Error(at(json), fmt::format("{} is {}, not a string", what, json.kind_name()));
    if (json.as_string().find_first_not_of(" \t\n") == std::string::npos)
      throw Error(at(json), fmt::format("{} is empty", what));
    return json.as_string();
  }

  const std::vector<Json>& items(const Json& json, const char* what) const {
    if (!json.is(Json::Kind::array))
      throw Error(at(json), fmt::format("{} is {}, not an array", what, json.kind_name()));
    return json.items();
  }

  // Paths are meant from the file's folder, wherever the tool is started.
  std::string base_path(std::string base) const {
    const fs::path beside = fs::path(path_).parent_path() / base;
    std::error_code ignored;
    return fs::exists(beside, ignored) ? beside.string() : base;
  }

  std::vector<std::string> pairs(const Json& options) const {
    if (!options.is(Json::Kind::object))
      throw Error(at(options),
                  fmt::format("server_options is {}, not an object", options.kind_name()));
    std::vector<std::string> out;
    for (const auto& [key, value] : options.members()) out.push_back(key + "=" + option(value));
    return out;
  }

  std::string option(const Json& value) const {
    if (value.is(Json::Kind::boolean)) return value.as_bool() ? "on" : "off";
    if (value.is_number()) return value.dump(-1);
    return text(value, "a server option");
  }

  const Json& required(const Json& ignore, const char* key, const char* hint) const {
    if (const Json* value = ignore.find(key)) return *value;
    throw Error(at(ignore), fmt::format("an ignore without \"{}\"", key), hint);
  }

  Waiver waiver(const Json& ignore) const {
    expect_object(ignore, "an ignore", {"rule", "reason", "adapter"});
    const Json& rule = required(ignore, "rule", "write the rule's id or name");
    const Json& reason = required(ignore, "reason", "write why the finding can be lived with");
    Waiver out{&rule_named(text(rule, "rule"), at(rule)), text(reason, "reason"), "",
               at(ignore).text(), fs::path(path_).parent_path().string()};
    if (const Json* adapter = ignore.find("adapter")) out.adapter = text(*adapter, "adapter");
    return out;
  }

  std::string path_;
};

}  // namespace

Project read_project(const std::string& path) { return Reader(path).read(); }

}  // namespace moelora
