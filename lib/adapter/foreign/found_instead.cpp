#include "lib/adapter/foreign/found_instead.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "lib/base/natural_order.h"
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

// The files and folders below, those of its folders as "folder/file". Links to folders are not
// entered: they may lead out of what was given.
Folder list(const std::string& path, bool deeper) {
  Folder out{path, {}, {}};
  std::error_code fault;
  for (auto it = fs::directory_iterator(path, fault); !fault && it != fs::directory_iterator();
       it.increment(fault)) {
    std::error_code ignored;
    const std::string name = it->path().filename().string();
    const bool is_folder = it->is_directory(ignored);
    if (is_folder && it->is_symlink(ignored)) continue;
    if (!is_folder) {
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

// Folders with an adapter_config.json, at most `levels` down; few enough folders are looked at that
// a home folder does not matter.
void find_adapters(const std::string& path, const std::string& name, int levels, int& left,
                   Names& out) {
  if (levels == 0) return;
  for (const std::string& below : list(path, false).folders) {
    if (left-- <= 0) return;
    const std::string here = join_path(path, below), shown = name + below;
    std::error_code ignored;
    if (fs::exists(join_path(here, "adapter_config.json"), ignored)) out.push_back(shown);
    find_adapters(here, shown + "/", levels - 1, left, out);
  }
}

std::optional<FoundInstead> adapters_below(const Folder& folder) {
  constexpr int kLevels = 3, kMostFolders = 2000;
  Names found;
  int left = kMostFolders;
  find_adapters(folder.path, "", kLevels, left, found);
  if (found.empty()) return std::nullopt;
  std::sort(found.begin(), found.end(), comes_before);
  const bool deep = std::any_of(found.begin(), found.end(), [](const std::string& name) {
    return name.find('/') != std::string::npos;
  });
  return FoundInstead{fmt::format("holds adapters {}: {}", deep ? "further down" : "one level down",
                                  list_some(found)),
                      "Name one of them: " + join_path(folder.path, found.back())};
}

bool has_folder(const Folder& folder, const std::string& name) {
  return std::binary_search(folder.folders.begin(), folder.folders.end(), name);
}

std::optional<FoundInstead> cached_repository(const Folder& folder) {
  if (!has_folder(folder, "snapshots")) return std::nullopt;
  const std::string snapshot = snapshot_in(folder.path);
  if (!snapshot.empty())
    return FoundInstead{"is a repository of the hub's cache", "Name its snapshot: " + snapshot};
  const std::string snapshots = join_path(folder.path, "snapshots");
  const Names several = list(snapshots, false).folders;
  if (several.empty() || !has_folder(folder, "refs")) return std::nullopt;
  return FoundInstead{"is a repository of the hub's cache with snapshots " + list_some(several),
                      "Name one of them: " + join_path(snapshots, several.back())};
}

// "someone/lora" of models--someone--lora, the folder of a repository in a cache.
std::string hub_name_of_folder(const std::string& folder) {
  constexpr std::string_view kModels = "models--";
  if (!folder.starts_with(kModels)) return "";
  std::string out = folder.substr(kModels.size());
  if (const size_t at = out.find("--"); at != std::string::npos) out.replace(at, 2, "/");
  return out;
}

// The cache itself, or the folder around it.
std::optional<FoundInstead> whole_cache(const Folder& folder) {
  Names folders = folder.folders, names;
  if (has_folder(folder, "hub")) {
    const Names inside = list(join_path(folder.path, "hub"), false).folders;
    folders.insert(folders.end(), inside.begin(), inside.end());
  }
  for (const std::string& below : folders)
    if (std::string name = hub_name_of_folder(below); !name.empty())
      names.push_back(std::move(name));
  if (names.empty()) return std::nullopt;
  return FoundInstead{"is the hub's cache, with " + list_some(names),
                      "Name one of them as on the hub: " + names.front()};
}

// What the name of one file says of the folder.
struct Sign {
  bool (*matches)(std::string_view name);
  std::string_view what, advice;
};

// Whether a name ends in one of these; a part that ends in a dot may stand anywhere.
bool has(std::string_view name, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](std::string_view part) {
    return name.ends_with(part) || (part.ends_with('.') && name.find(part) != name.npos);
  });
}

constexpr std::string_view kGatherZero =
    "Gather them: python zero_to_fp32.py CHECKPOINT OUT, then save the adapter; in training, "
    "stage3_gather_16bit_weights_on_model_save lets save_pretrained do it.";

const Sign kSigns[] = {
    {[](std::string_view n) { return n.ends_with(".distcp"); },
     "holds the shards of a training (torch.distributed.checkpoint, FSDP)",
     "Gather them: let the trainer save a full state dict, or python -m "
     "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE, and save its lora_ "
     "tensors as an adapter."},
    {[](std::string_view n) {
       return n.find("zero_pp_rank_") != std::string_view::npos && n.ends_with("_model_states.pt");
     },
     "holds the shards of a DeepSpeed training", kGatherZero},
    {[](std::string_view n) { return n.ends_with("mp_rank_00_model_states.pt"); },
     "holds a DeepSpeed checkpoint with whole weights",
     "Name that file, with the adapter_config.json of the training beside it."},
    {[](std::string_view n) {
       return n.ends_with("_optim_states.pt") || n.ends_with("_model_states.pt") ||
              n.ends_with("zero_to_fp32.py");
     },
     "holds the shards of a DeepSpeed training", kGatherZero},
    {[](std::string_view n) {
       return has(n, {"model_optim_rng.pt", "latest_checkpointed_iteration.txt"});
     },
     "holds a checkpoint of Megatron",
     "Export it to Hugging Face names with the trainer's own converter (Megatron-Bridge: "
     "export_adapter_ckpt; ms-swift: swift export --to_hf true) and give that folder."},
    {[](std::string_view n) {
       return has(n, {"manifest.ocdbt", "_CHECKPOINT_METADATA", ".zarray"});
     },
     "holds a checkpoint of Orbax or Zarr (JAX, Megatron)",
     "Export it to PEFT's names with the trainer's own converter and give that folder."},
    {[](std::string_view n) { return n.ends_with(".nemo"); }, "holds a .nemo archive",
     "Export it to Hugging Face names with NeMo's own converter and give that folder."},
    {[](std::string_view n) { return n.ends_with(".gguf"); }, "holds a GGUF file (llama.cpp)",
     "Servers and this tool want the folder with adapter_config.json that it was made from."},
    {[](std::string_view n) { return has(n, {"adapters.safetensors"}); }, "holds an adapter of MLX",
     "mlx-lm writes adapter_config.json beside it, with rank and scale: put it back, and "
     "lora-convert adapter FOLDER OUT --to peft-linear --base BASE reads both."},
    {[](std::string_view n) { return has(n, {"adapters.npz"}); }, "holds an adapter of MLX",
     "Write an adapter_config.json beside it with num_layers and lora_parameters, rank and scale "
     "as it was trained with; both are read then."},
    {[](std::string_view n) { return has(n, {"pytorch_lora_weights."}); },
     "holds a LoRA of diffusers", "Servers of language models want one that PEFT saved."},
    {[](std::string_view n) { return n.ends_with(".ckpt"); }, "holds a checkpoint of Lightning",
     "Name that file, with the adapter_config.json of the training beside it, or save the adapter "
     "from it with model.save_pretrained."},
    {[](std::string_view n) { return n.ends_with(".tensors"); }, "holds a file of Tensorizer",
     "Give the folder that it was made from; vLLM reads such adapters until 0.31 alone."},
    {[](std::string_view n) {
       return has(n, {".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".zst", ".gz", ".bz2",
                      ".xz"});
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
  const bool named = name.starts_with("model") || name.starts_with("pytorch_model") ||
                     name.starts_with("consolidated");
  return named && name.find('/') == std::string::npos &&
         (name.ends_with(kSafetensorsEnding) || name.ends_with(kIndexEnding) ||
          name.ends_with(".bin") || name.ends_with(".pth"));
}

std::optional<FoundInstead> whole_model(const Folder& folder) {
  const auto weights = std::find_if(folder.files.begin(), folder.files.end(), is_model_file);
  if (weights == folder.files.end()) return std::nullopt;
  for (const char* config : {"config.json", "params.json"})
    if (std::binary_search(folder.files.begin(), folder.files.end(), std::string(config)))
      return FoundInstead{
          fmt::format("holds a whole model ({}, {}), no adapter", config, printable(*weights)),
          "Serve it as the model; an adapter has adapter_config.json."};
  return std::nullopt;
}

// "org/name" of "https://huggingface.co/org/name/..."; "" for another address.
std::string hub_name_of(const std::string& address) {
  size_t at = std::string::npos;
  for (const std::string_view hub : {"huggingface.co/", "hf.co/", "hf://"})
    if (at = address.find(hub); at != std::string::npos) {
      at += hub.size();
      break;
    }
  if (at == std::string::npos) return "";
  const std::string rest = address.substr(at);
  const size_t slash = rest.find('/');
  if (slash == std::string::npos) return "";
  const std::string name = rest.substr(0, rest.find('/', slash + 1));
  return is_hub_name(name) ? name : "";
}

}  // namespace

FoundInstead instead_of_path(const std::string& path) {
  std::error_code none;
  const std::string name = hub_name_of(path);
  if (path.find("://") != std::string::npos || !name.empty()) {
    return {"is an address, and nothing is downloaded",
            name.empty() ? "Download it first and give the folder."
                         : fmt::format("Download it first: hf download {} --local-dir FOLDER, and "
                                       "give the folder.",
                                       name)};
  }
  if (const fs::path target = fs::read_symlink(path, none); !target.empty())
    return {fmt::format("is a link to {}, which is not there", printable(target.string())),
            "Name the folder itself, with adapter_config.json."};
  if (auto fault = hub_cache_fault(path))
    return {"does not exist; " + fault->what, std::move(fault->advice)};
  if (is_hub_name(path) && path.find('/') != std::string::npos)
    return {"does not exist",
            fmt::format("name a folder with adapter_config.json; a hub name that no cache has must "
                        "be downloaded first: hf download {}",
                        path)};
  return {"does not exist", "name a folder with adapter_config.json"};
}

std::optional<FoundInstead> instead_in_folder(const std::string& path) {
  const Folder folder = list(path, true);
  for (const auto look : {cached_repository, whole_cache, adapters_below, by_sign, whole_model})
    if (auto found = look(folder)) return found;
  return std::nullopt;
}

}  // namespace moelora
