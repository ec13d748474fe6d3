#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <optional>

#include "lib/base/error.h"
#include "lib/model/builtin_models.h"
#include "lib/model/hub_cache.h"
#include "lib/model/model_builder.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

std::vector<Family> read_families(const std::vector<std::string>& paths) {
  std::vector<Family> out;
  for (const std::string& path : paths) out.push_back(parse_family(read_json_file(path), path));
  return out;
}

BaseModel base_of(Json config, const std::string& where, std::string origin, std::string folder,
                  const std::vector<Family>& families) {
  BaseModel out;
  out.spec = build_model_spec(config, where, family_of(config, where, families));
  out.config = std::move(config);
  out.origin = std::move(origin);
  out.folder = std::move(folder);
  return out;
}

BaseModel base_of_file(const std::string& path, std::string folder,
                       const std::vector<Family>& families) {
  return base_of(read_json_file(path), path, path, std::move(folder), families);
}

BaseModel base_of_path(const std::string& path, const std::vector<Family>& families) {
  if (!fs::is_directory(path)) return base_of_file(path, "", families);
  const std::string config = (fs::path(path) / "config.json").string();
  if (!fs::exists(config)) {
    throw Error(path, "this folder has no config.json",
                "name the model's folder, or its config.json");
  }
  return base_of_file(config, path, families);
}

// `tried` collects what was looked at, for the message.
std::optional<BaseModel> base_of_name(const std::string& name, const std::vector<Family>& families,
                                      std::string& tried) {
  if (const auto builtin = find_builtin_model(name)) {
    return base_of(builtin->config, builtin->where, "built-in config of " + builtin->name, "",
                   families);
  }
  tried += "no built-in model has this name";
  const HubSnapshot snapshot = find_hub_snapshot(name);
  if (!snapshot.folder.empty()) return base_of_path(snapshot.folder, families);
  tried += "; " + snapshot.tried;
  return std::nullopt;
}

}  // namespace

BaseModel open_base(const std::string& base, const std::vector<std::string>& model_specs) {
  const std::vector<Family> families = read_families(model_specs);
  std::error_code ignored;
  if (fs::exists(base, ignored)) return base_of_path(base, families);
  std::string tried = "no such file or folder; ";
  if (auto found = base_of_name(base, families, tried)) return std::move(*found);
  throw Error(base, tried,
              fmt::format("name a model folder, a config.json or one of: {}",
                          fmt::join(builtin_models(), ", ")));
}

BaseModel find_base_by_name(const std::string& name, const std::vector<std::string>& model_specs) {
  std::string tried;
  auto found = base_of_name(name, read_families(model_specs), tried);
  return found ? std::move(*found) : BaseModel();
}

}  // namespace moelora
