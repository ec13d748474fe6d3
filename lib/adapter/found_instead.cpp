#include "lib/adapter/found_instead.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "lib/base/utf8.h"
#include "lib/io/file.h"
#include "lib/io/safetensors_header.h"
#include "lib/io/shard_index.h"
#include "lib/model/hub_cache.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

struct Folder {
  std::string path;
  Names files, folders;  // names, sorted
};

// The files and folders below, those of its folders as "folder/file".
Folder list(const std::string& path, bool deeper) {
  Folder out{path, {}, {}};
  std::error_code fault;
  for (auto it = fs::directory_iterator(path, fault); !fault && it != fs::directory_iterator();
       it.increment(fault)) {
    std::error_code ignored;
    const std::string name = it->path().filename().string();
    if (!it->is_directory(ignored)) {
      out.files.push_back(name);
      continue;
    }
    out.folders.push_back(name);
    if (!deeper) continue;
    for (const std::string& below : list(it->path().string(), false).files)
      out.files.push_back(name + "/" + below);
  }
  std::sort(out.files.begin(), out.files.end());
  std::sort(out.folders.begin(), out.folders.end());
  return out;
}

std::optional<FoundInstead> adapters_below(const Folder& folder) {
  Names found;
  for (const std::string& name : folder.folders)
    if (std::binary_search(folder.files.begin(), folder.files.end(), name + "/adapter_config.json"))
      found.push_back(name);
  if (found.empty()) return std::nullopt;
  return FoundInstead{"holds adapters one level down: " + list_some(found),
                      "Name one of them: " + join_path(folder.path, found.back()) + "."};
}

std::optional<FoundInstead> cached_repository(const Folder& folder) {
  const std::string snapshot = snapshot_in(folder.path);
  if (snapshot.empty()) return std::nullopt;
  return FoundInstead{"is a repository of the hub's cache", "Name its snapshot: " + snapshot + "."};
}

// What the name of one file says of the folder.
struct Sign {
  bool (*matches)(std::string_view name);
  std::string_view what, advice;
};

const Sign kSigns[] = {
    {[](std::string_view n) { return n.ends_with(".distcp"); },
     "holds the shards of a training (torch.distributed.checkpoint, FSDP)",
     "Gather them: let the trainer save a full state dict, or python -m "
     "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE, and save its lora_ "
     "tensors as an adapter."},
    {[](std::string_view n) {
       return n.find("zero_pp_rank_") != std::string_view::npos ||
              n.ends_with("_optim_states.pt") || n.ends_with("_model_states.pt") ||
              n.ends_with("zero_to_fp32.py");
     },
     "holds the shards of a DeepSpeed training",
     "Gather them: python zero_to_fp32.py CHECKPOINT OUT, then save the adapter; in training, "
     "stage3_gather_16bit_weights_on_model_save lets save_pretrained do it."},
    {[](std::string_view n) { return n.ends_with(".nemo"); }, "holds a .nemo archive",
     "Export it to Hugging Face names with NeMo's own converter and give that folder."},
    {[](std::string_view n) { return n.ends_with(".gguf"); }, "holds a GGUF file (llama.cpp)",
     "Servers and this tool want the folder with adapter_config.json that it was made from."},
    {[](std::string_view n) {
       return n.ends_with(".zip") || n.ends_with(".tar.gz") || n.ends_with(".tgz") ||
              n.ends_with(".tar");
     },
     "holds a packed file", "Unpack it and give the folder."},
};

std::optional<FoundInstead> by_sign(const Folder& folder) {
  for (const Sign& sign : kSigns)
    for (const std::string& name : folder.files)
      if (sign.matches(name))
        return FoundInstead{fmt::format("{}: {}", sign.what, printable(name)),
                            std::string(sign.advice)};
  return std::nullopt;
}

bool is_model_file(const std::string& name) {
  return (name.starts_with("model") || name.starts_with("pytorch_model")) &&
         name.find('/') == std::string::npos &&
         (name.ends_with(kSafetensorsEnding) || name.ends_with(kIndexEnding) ||
          name.ends_with(".bin"));
}

std::optional<FoundInstead> whole_model(const Folder& folder) {
  const auto weights = std::find_if(folder.files.begin(), folder.files.end(), is_model_file);
  if (weights == folder.files.end() ||
      !std::binary_search(folder.files.begin(), folder.files.end(), std::string("config.json")))
    return std::nullopt;
  return FoundInstead{fmt::format("holds a whole model (config.json, {}), no adapter", *weights),
                      "Serve it as the model; an adapter has adapter_config.json."};
}

// "org/name" of "https://huggingface.co/org/name/..."; "" for another address.
std::string hub_name_of(const std::string& address) {
  constexpr std::string_view kHub = "huggingface.co/";
  const size_t at = address.find(kHub);
  if (at == std::string::npos) return "";
  const std::string rest = address.substr(at + kHub.size());
  const size_t slash = rest.find('/');
  if (slash == std::string::npos) return "";
  const std::string name = rest.substr(0, rest.find('/', slash + 1));
  return is_hub_name(name) ? name : "";
}

}  // namespace

FoundInstead instead_of_path(const std::string& path) {
  std::error_code none;
  if (const size_t at = path.find("://"); at != std::string::npos) {
    const std::string name = hub_name_of(path);
    return {"is an address, and nothing is downloaded",
            name.empty() ? "Download it first and give the folder."
                         : fmt::format("Download it first: hf download {} --local-dir FOLDER, and "
                                       "give the folder.",
                                       name)};
  }
  if (const fs::path target = fs::read_symlink(path, none); !target.empty())
    return {fmt::format("is a link to {}, which is not there", printable(target.string())),
            "Name the folder itself, with adapter_config.json."};
  if (is_hub_name(path) && path.find('/') != std::string::npos)
    return {"does not exist",
            fmt::format("name a folder with adapter_config.json; a hub name that no cache has must "
                        "be downloaded first: hf download {}",
                        path)};
  return {"does not exist", "name a folder with adapter_config.json"};
}

std::optional<FoundInstead> instead_in_folder(const std::string& path) {
  const Folder folder = list(path, true);
  for (const auto look : {adapters_below, cached_repository, by_sign, whole_model})
    if (auto found = look(folder)) return found;
  return std::nullopt;
}

}  // namespace moelora
