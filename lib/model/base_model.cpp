#include "lib/model/base_model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>

#include "lib/base/nearest.h"
#include "lib/io/disk/look.h"
#include "lib/io/weights.h"
#include "lib/model/derived_family.h"
#include "lib/model/embedded_builtins.h"
#include "lib/model/family.h"
#include "lib/model/hub_cache.h"
#include "lib/model/json_view.h"
#include "lib/model/model_builder.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

struct BuiltinModel {
  std::vector<std::string> names;
  std::string where;  // the file, for messages
  Json config;
};

const std::vector<BuiltinModel>& builtins() {
  static const std::vector<BuiltinModel> all = [] {
    std::vector<BuiltinModel> out;
    for (const auto& [name, text] : embedded_builtin_files()) {
      const std::string where = "schemas/builtin_models/" + name + ".json";
      const Json json = parse_json(text, where);
      const JsonView view(json, where);
      out.push_back({view.at("names").strings(), where, view.at("config").json()});
    }
    return out;
  }();
  return all;
}

bool same_name(const std::string& a, const std::string& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

const BuiltinModel* find_builtin_model(const std::string& name) {
  for (const BuiltinModel& model : builtins())
    for (const std::string& known : model.names)
      if (same_name(known, name)) return &model;
  return nullptr;
}

std::vector<Family> read_families(const std::vector<std::string>& paths) {
  std::vector<Family> out;
  for (const std::string& path : paths) out.push_back(parse_family(read_json_file(path), path));
  return out;
}

BaseModel base_of(Json config, const std::string& where, std::string origin, std::string folder,
                  const std::vector<Family>& families) {
  BaseModel out;
  out.spec = make_model_spec(config, where, families);
  if (const std::string loaders = loaders_of(config, where, families); !loaders.empty())
    out.derived = fmt::format(
        "{}: its modules and experts are those that weight loaders read ({}), and were compared "
        "with no model",
        out.spec.model_type, loaders);
  out.config = std::move(config);
  out.origin = std::move(origin);
  out.folder = std::move(folder);
  return out;
}

std::string derived_note(const BaseModel& base, const UnknownFamily& unknown) {
  return fmt::format(
      "{}: its modules and experts are read from the names and shapes of its weights{}",
      unknown.what(),
      base.spec.gate_up_order ? "" : "; the order of fused gate and up rows is unknown");
}

std::map<std::string, Shape> shapes_in(const std::string& folder, Links links) {
  std::map<std::string, Shape> out;
  for (const auto& [name, tensor] : open_weights(folder, {"model"}, {false, links}).tensors)
    out.emplace(name, tensor.shape());
  return out;
}

// nullopt without weights that can be read.
std::optional<BaseModel> derived_base(const std::string& folder, const InputPath& config_path,
                                      Links links, const UnknownFamily& unknown) {
  std::map<std::string, Shape> shapes;
  try {
    shapes = shapes_in(folder, links);
  } catch (const MachineError&) {
    throw;
  } catch (const Error&) {
    return std::nullopt;
  }
  Json config = read_json_file(config_path);
  try {
    const std::vector<Family> family = {
        parse_family(derive_family(shapes, config, folder), config_path.path)};
    BaseModel out = base_of(std::move(config), config_path.path, config_path.path, folder, family);
    out.spec.derived = true;
    out.derived = derived_note(out, unknown);
    return out;
  } catch (const MachineError&) {
    throw;
  } catch (const Error& error) {
    throw UnknownFamily(
        {unknown.location(), fmt::format("{}; {}", unknown.text(), error.text()), unknown.advice()},
        unknown.architecture);
  }
}

BaseModel base_of_path(const std::string& path, const std::vector<Family>& families, Links links) {
  if (!is_folder(path)) return base_of(read_json_file(path), path, path, "", families);
  const InputPath config(path, "config.json", links);
  if (is_absent(config.path))
    throw Error(path, "this folder has no config.json",
                "name the model's folder, or its config.json");
  try {
    BaseModel out = base_of(read_json_file(config), config.path, config.path, path, families);
    out.links = links;
    return out;
  } catch (const UnknownFamily& unknown) {
    auto out = derived_base(path, config, links, unknown);
    if (!out) throw;
    out->links = links;
    return std::move(*out);
  }
}

// Whether an adapter may mean this folder by base_model_name_or_path.
bool is_model_folder(const std::string& name) {
  return !name.empty() && is_regular_file(join_path(name, "config.json"));
}

// `tried` collects what was looked at, for the message.
std::optional<BaseModel> base_of_name(const std::string& name, const std::vector<Family>& families,
                                      Links links, std::string& tried) {
  if (const BuiltinModel* builtin = find_builtin_model(name))
    return base_of(builtin->config, builtin->where, "built-in config of " + builtin->names.front(),
                   "", families);
  tried += "no built-in model has this name";
  const auto snapshot = find_hub_snapshot(name, tried);
  return snapshot ? std::optional(base_of_path(*snapshot, families, links)) : std::nullopt;
}

}  // namespace

BaseModel open_base(const std::string& base, const std::vector<std::string>& model_specs,
                    Links links) {
  const std::vector<Family> families = read_families(model_specs);
  if (!is_absent(base)) return base_of_path(base, families, links);
  std::string tried = "no such file or folder; ";
  if (auto found = base_of_name(base, families, links, tried)) return std::move(*found);
  const std::vector<std::string> names = builtin_models();
  const std::vector<std::string_view> known(names.begin(), names.end());
  const auto meant = nearest(base, known);
  throw Error(base, tried,
              meant ? fmt::format("did you mean '{}'?", *meant)
                    : std::string("name a model folder, a config.json or a built-in model such as "
                                  "openai/gpt-oss-20b (REFERENCE.md lists them)"));
}

Json derived_family_of(const std::string& base, Links links) {
  std::string folder = base, tried = "no such folder";
  if (is_absent(base)) {
    const auto snapshot = find_hub_snapshot(base, tried);
    if (!snapshot) throw Error(base, tried, "name a model folder");
    folder = *snapshot;
  }
  const InputPath config(folder, "config.json", links);
  const Json json = read_json_file(config);  // the first to be said to be wrong
  return derive_family(shapes_in(folder, links), json, folder);
}

const std::string& BaseModel::values_folder() const {
  static const std::string kNone;
  return followed ? kNone : folder;
}

std::optional<BaseModel> find_named_base(const std::string& name,
                                         const std::vector<std::string>& model_specs, bool follow,
                                         Links links) {
  const std::vector<Family> families = read_families(model_specs);
  if (follow && is_model_folder(name)) {
    BaseModel out = base_of_path(name, families, links);
    out.followed = true;
    return out;
  }
  std::string tried;
  return base_of_name(name, families, links, tried);
}

Hint check_base() {
  return {"check that ", Option::base, " names the model this adapter was trained on"};
}

std::string named_base_note(const BaseModel& base) {
  return fmt::format("base model: {} (from base_model_name_or_path)", base.origin);
}

std::optional<BaseModel> base_or_hint(const std::string& base, const std::string& hint,
                                      const std::vector<std::string>& model_specs, bool follow,
                                      std::vector<std::string>& notes, Links links) {
  if (!base.empty()) {
    BaseModel out = open_base(base, model_specs, links);
    if (!out.derived.empty()) notes.push_back(out.derived);
    return out;
  }
  if (hint.empty()) return std::nullopt;
  try {
    auto found = find_named_base(hint, model_specs, follow, links);
    if (found) notes.push_back(named_base_note(*found));
    if (found && !found->derived.empty()) notes.push_back(found->derived);
    return found;
  } catch (const UnknownFamily& error) {
    notes.push_back(fmt::format("read without a base model: {}", error.what()));
    return std::nullopt;
  }
}

std::vector<std::string> builtin_models() {
  std::vector<std::string> out;
  for (const BuiltinModel& model : builtins())
    out.insert(out.end(), model.names.begin(), model.names.end());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace moelora
