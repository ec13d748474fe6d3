#include "lib/check/many/clean_cache.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "lib/base/digest.h"
#include "lib/base/version.h"
#include "lib/check/report.h"
#include "lib/io/disk/look.h"
#include "lib/io/disk/staging.h"
#include "lib/io/file.h"
#include "lib/io/input_watch.h"
#include "lib/io/json.h"
#include "lib/io/safetensors_header.h"
#include "lib/model/json_view.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSchema = "moelora.clean/1";
// https://bford.info/cachedir: programs that make backups leave such folders out.
constexpr std::string_view kTag = "CACHEDIR.TAG";
constexpr std::string_view kTagText =
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Adapters that lora-validate --cache found clean. The folder may be removed at any time.\n";

// ---- what makes an adapter the same ----

// Texts one after the other; their lengths keep "ab", "c" and "a", "bc" apart.
class TextDigest {
 public:
  TextDigest& add(std::string_view text) {
    const uint64_t size = text.size();
    digest_.update(std::as_bytes(std::span(&size, 1)));
    digest_.update(std::as_bytes(std::span(text)));
    return *this;
  }
  TextDigest& add(uint64_t number) { return add(std::to_string(number)); }
  std::string hex() const { return digest_.hex(); }

 private:
  Digest digest_;
};

template <class T>
std::string text_of(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "";
}

template <class E>
std::string word_of(const std::optional<E>& value) {
  return value ? std::to_string(static_cast<int>(*value)) : "";
}

std::string digest_of_options(const ValidateRequest& request) {
  TextDigest out;
  out.add(version()).add(list_rules("json"));
  for (const EngineChoice& choice : request.engines) out.add(choice.label());
  const ServerOptions& server = request.options;
  out.add(fmt::format("tp {} ep {} rank {} loras {} memory {} capability {}", server.tp, server.ep,
                      text_of(server.max_lora_rank), text_of(server.max_loras),
                      text_of(server.gpu_memory), text_of(server.compute_capability)));
  for (const auto& [key, value] : server.values) out.add(key).add(value);
  const LoadOptions& load = request.subject.load;
  out.add(load.from).add(load.base);
  out.add(fmt::format("follow {} b-order {} roles {} crc {} links {} values {}", load.follow_base,
                      word_of(load.read.b_order), word_of(load.read.roles), load.ignore_zip_crc,
                      static_cast<int>(load.links), request.subject.values));
  for (const std::string& spec : load.model_specs) out.add(read_json_file(spec).dump());
  return out.hex();
}

// The JSON files of a folder that readers of adapters look into.
bool is_read(std::string_view name) {
  for (const std::string_view known :
       {"adapter_config.json", "added_tokens.json", "automodel_peft_config.json", "params.json"})
    if (name == known) return true;
  return name.ends_with(".index.json") ||
         (name.starts_with("adapter_manifest-") && name.ends_with(".json"));
}

// Of a file that was read, and is sound: the length and the text of its header.
std::string header_bytes(const File& file) {
  std::array<unsigned char, 8> length{};
  file.read(0, length.size(), reinterpret_cast<std::byte*>(length.data()));
  uint64_t bytes = 0;
  for (size_t i = length.size(); i-- > 0;) bytes = bytes << 8 | length[i];
  std::string out(std::min(bytes, kMaxHeaderBytes), '\0');
  file.read(length.size(), out.size(), reinterpret_cast<std::byte*>(out.data()));
  return out;
}

bool has_header(const FolderFile& file) {
  return file.file != nullptr && file.name.ends_with(kSafetensorsEnding);
}

// ---- the folder ----

[[noreturn]] void refuse(const std::string& folder, std::string what, const char* hint) {
  throw Error(in_file(folder), std::move(what), hint);
}

// Writes a file of the folder under a temporary name and gives it its own in one step, which
// replaces whatever is there: a link is not followed.
void publish(const std::string& path, std::string_view text) {
  const StagedFile staged = stage_file(path);
  std::FILE* out = fdopen(staged.fd, "w");
  const bool written =
      out != nullptr && std::fwrite(text.data(), 1, text.size(), out) == text.size();
  int fault = written ? 0 : errno;
  if (out == nullptr)
    ::close(staged.fd);
  else if (std::fclose(out) != 0 && fault == 0)
    fault = errno;
  try {
    if (fault != 0)
      throw Error(in_file(path), "could not be written completely: " + system_text(fault));
    publish_file(staged.path, path, path);
  } catch (const Error&) {
    remove_staged(staged.path);
    throw;
  }
}

bool has_tag(const std::string& folder) {
  const InputWatch own;  // another run may put its own there
  try {
    return read_text({folder, std::string(kTag), Links::within}, 1 << 12) == kTagText;
  } catch (const MachineError&) {
    throw;
  } catch (const Error&) {
    return false;
  }
}

// Nothing but what another run may be writing at this moment.
bool is_empty(const std::string& folder) {
  for (const std::string& name : names_in(folder))
    if (!name.starts_with('.')) return false;
  return true;
}

void make_folder(const std::string& folder) {
  const fs::path above = fs::path(folder).parent_path();
  std::error_code fault;
  if (!above.empty()) fs::create_directories(above, fault);
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    refuse(folder, "cannot be made: " + system_text(errno), "choose another --cache");
}

void check_folder(const std::string& folder) {
  struct stat s {};
  if (stat(folder.c_str(), &s) != 0)
    refuse(folder, "cannot be looked at: " + system_text(errno), "choose another --cache");
  if (!S_ISDIR(s.st_mode)) refuse(folder, "is no folder", "choose another --cache");
  if (s.st_uid != geteuid())
    refuse(folder, "belongs to another user, who could have put verdicts there",
           "choose another --cache");
  if ((s.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    refuse(folder, "may be written to by others, who could put verdicts there",
           "take that right from them with chmod go-w, or choose another --cache");
}

// ---- a verdict as JSON ----

Json json_of(const CleanVerdict& verdict, const std::string& key) {
  std::vector<Json> served, skipped;
  for (const Served& each : verdict.served)
    served.push_back(Json::object({{"engine", each.engine}, {"text", each.text}}));
  for (const Skipped& each : verdict.skipped)
    skipped.push_back(Json::object({{"what", each.what}, {"why", each.why}}));
  return Json::object({{"schema", kSchema},
                       {"key", key},
                       {"layout", verdict.layout},
                       {"tensors", verdict.tensors},
                       {"rules_run", verdict.rules_run},
                       {"served", Json::array(std::move(served))},
                       {"notes", Json::strings(verdict.notes)},
                       {"skipped", Json::array(std::move(skipped))}});
}

CleanVerdict verdict_of(const JsonView& json) {
  CleanVerdict out;
  out.layout = json.at("layout").string();
  out.tensors = json.at("tensors").integer();
  out.rules_run = json.at("rules_run").integer();
  for (const JsonView& each : json.at("served").items())
    out.served.push_back({0, 0, each.at("engine").string(), each.at("text").string()});
  out.notes = json.at("notes").strings();
  for (const JsonView& each : json.at("skipped").items())
    out.skipped.push_back({each.at("what").string(), each.at("why").string()});
  return out;
}

}  // namespace

CleanCache::CleanCache(std::string folder, const ValidateRequest& request)
    : folder_(std::move(folder)), asked_(digest_of_options(request)) {
  if (!is_there(folder_)) make_folder(folder_);
  check_folder(folder_);
  if (has_tag(folder_)) return;
  if (!is_empty(folder_))
    refuse(folder_, fmt::format("holds other files, and no {} of lora-validate", kTag),
           "name a new folder, or an empty one");
  publish(join_path(folder_, std::string(kTag)), kTagText);
}

const std::string& CleanCache::digest_of(OpenedBase& base) {
  const auto [at, is_new] = bases_.try_emplace(&base);
  if (!is_new) return at->second;
  TextDigest out;
  if (base.model) out.add(base.model->origin).add(base.model->config.dump());
  if (base.error) out.add(base.error->what());
  std::string note;
  if (const auto& headers = base.headers(note))
    for (const auto& [name, weight] : headers->weights)
      out.add(name).add(dtype_name(weight.dtype)).add(to_string(weight.shape));
  return at->second = out.add(note).hex();
}

std::string CleanCache::key_of(const Subject& adapter, const std::string& base) const {
  if (!adapter.problems.empty() || adapter.files.empty() || adapter.pickle) return "";
  TextDigest out;
  out.add(asked_).add(base).add(adapter.given);
  for (const std::string& name : adapter.listing) {
    out.add(name);
    if (!is_read(name)) continue;
    try {
      out.add(read_text({adapter.folder, name, Links::within}, kMaxHeaderBytes));
    } catch (const Error&) {
      return "";
    }
  }
  for (const FolderFile& file : adapter.files) {
    if (!has_header(file)) return "";
    out.add(file.name).add(file.file->size()).add(header_bytes(*file.file));
  }
  return out.hex();
}

std::string CleanCache::file_of(const std::string& path) const {
  return TextDigest().add(asked_).add(path).hex() + ".json";
}

std::optional<CleanVerdict> CleanCache::find(const std::string& path, const std::string& key) const
    try {
  const InputWatch own;  // one that cannot be read is none
  const std::string name = file_of(path);
  const Json json = read_json_file({folder_, name, Links::within});
  const JsonView view(json, join_path(folder_, name));
  if (view.at("schema").string() != kSchema || view.at("key").string() != key) return std::nullopt;
  CleanVerdict out = verdict_of(view);
  own.check();
  return out;
} catch (const Cancelled&) {
  throw;
} catch (const Error&) {
  return std::nullopt;
}

void CleanCache::store(const std::string& path, const std::string& key,
                       const CleanVerdict& verdict) const {
  publish(join_path(folder_, file_of(path)), json_of(verdict, key).dump() + "\n");
}

}  // namespace moelora
