#include "lib/io/sniff.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <filesystem>

namespace moelora {
namespace {

struct Magic {
  std::string_view bytes;
  FileKind kind;
  size_t at = 0;
};

constexpr std::array kMagic = {
    Magic{"\x80\2\x8A\nl\xFC\x9C\x46\xF9 j\xA8P\x19.", FileKind::torch_legacy},
    Magic{"\x80\2", FileKind::pickle},
    Magic{"\x80\3", FileKind::pickle},
    Magic{"\x80\4", FileKind::pickle},
    Magic{"\x80\5", FileKind::pickle},
    Magic{"version https://git-lfs", FileKind::lfs_pointer},
    Magic{"GGUF", FileKind::gguf},
    Magic{"\x89HDF", FileKind::hdf5},
    Magic{"<!DOCTYPE", FileKind::html},
    Magic{"<!doctype", FileKind::html},
    Magic{"<html", FileKind::html},
    Magic{"{", FileKind::json},
    Magic{"ustar", FileKind::tar, 257},
    Magic{"\x1F\x8B", FileKind::gzip},
    Magic{"\xFD"
          "7zXZ",
          FileKind::packed},
    Magic{"BZh", FileKind::packed},
    Magic{"\x28\xB5\x2F\xFD", FileKind::packed},
    Magic{"7z\xBC\xAF\x27\x1C", FileKind::packed},
    Magic{"Rar!\x1A\x07", FileKind::packed},
    Magic{"\x04\x22\x4D\x18", FileKind::packed},
    Magic{"../", FileKind::link_text},
};

// With neither a version nor flags it may be the length of a safetensors header.
bool is_zip(std::string_view begin) {
  return begin.starts_with("PK\3\4") && begin.size() >= 8 &&
         begin.substr(4, 4) != std::string_view("\0\0\0\0", 4);
}

// By the directory at the end of a zip: the files of an adapter's or model's folder, the arrays of
// NumPy, or else what torch.save writes.
FileKind kind_of_zip(const File& file) {
  constexpr uint64_t kMost = 1U << 16;
  std::string end(std::min(kMost, file.size()), '\0');
  file.read(file.size() - end.size(), end.size(), reinterpret_cast<std::byte*>(end.data()));
  const auto names = [&](std::string_view part) { return end.find(part) != std::string::npos; };
  if (names("adapter_config.json") || names(".safetensors")) return FileKind::zip_of_files;
  return names(".npy") ? FileKind::npz : FileKind::zip;
}

// A hint may be pasted into a shell, and neither a file's name nor a key is ours.
std::string safe_to_paste(std::string_view name, const char* otherwise) {
  constexpr std::string_view kSafe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  const bool safe = !name.empty() && name.find_first_not_of(kSafe) == std::string_view::npos;
  return std::string(safe ? name : otherwise);
}

// The command around an expression for the dict, where {} is the file's name.
std::string command(const std::string& path, const std::string& dict) {
  const std::filesystem::path name = std::filesystem::path(path).filename();
  return fmt::format(
      "python3 -c 'import torch, safetensors.torch as st; st.save_file({{k: v.contiguous().clone() "
      "for k, v in {}.items()}}, \"{}.safetensors\", {{\"format\": \"pt\"}})'",
      fmt::format(fmt::runtime(dict), safe_to_paste(name.string(), "FILE")),
      safe_to_paste(name.stem().string(), "FILE"));
}

constexpr const char* kLoad = "torch.load(\"{}\", map_location=\"cpu\", weights_only=True)";

}  // namespace

FileKind sniff(const File& file) {
  std::array<char, 264> head{};
  const uint64_t count = std::min<uint64_t>(head.size(), file.size());
  file.read(0, count, reinterpret_cast<std::byte*>(head.data()));
  const std::string_view begin(head.data(), count);
  if (is_zip(begin)) return kind_of_zip(file);
  const auto it = std::find_if(kMagic.begin(), kMagic.end(), [&](const Magic& m) {
    return begin.substr(std::min(m.at, begin.size())).starts_with(m.bytes);
  });
  return it == kMagic.end() ? FileKind::unknown : it->kind;
}

std::string_view describe(FileKind kind) {
  constexpr std::array<std::string_view, 15> kTexts = {
      // in the order of FileKind
      "of an unknown kind",
      "a zip archive (torch.save writes one)",
      "a zip archive of a folder",
      "a NumPy archive (.npz)",
      "a gzip archive",
      "a packed file (xz, bzip2, zstd, lz4, 7z or rar)",
      "a bare Python pickle",
      "a Python pickle in the form of torch.save before 1.6",
      "a tar archive (a packed folder, NeMo's .nemo, torch.save of 2016)",
      "a Git LFS pointer",
      "a GGUF file",
      "an HDF5 file",
      "an HTML page",
      "JSON text",
      "the text of a link (a folder of links, copied without them)",
  };
  return kTexts[static_cast<size_t>(kind)];
}

std::string remedy(FileKind kind, const std::string& path) {
  switch (kind) {
    case FileKind::zip:
    case FileKind::torch_legacy:
      return resave_hint(path);
    case FileKind::zip_of_files:
      return "Unpack it (unzip) and give the folder.";
    case FileKind::npz:
      return "mlx-lm once saved its adapters so: they are read as adapters.npz beside an "
             "adapter_config.json with lora_parameters.";
    case FileKind::packed:
      return "Unpack it and give the folder.";
    case FileKind::link_text:
      return "Copy the folder with its links (cp -a, tar), or download it again.";
    case FileKind::gzip:
      return "Unpack it (tar xzf, or gunzip) and give the folder.";
    case FileKind::tar:
      return path.ends_with(".nemo")
                 ? "A .nemo archive is NeMo's own: export the adapter to Hugging Face names with "
                   "NeMo's converter and give that folder."
                 : "Unpack it (tar xf) and give the folder.";
    case FileKind::gguf:
      return "llama.cpp made it from a folder with adapter_config.json: servers and this tool want "
             "that folder.";
    case FileKind::pickle:
      return "Only if you trust its author: load it with Python and save its tensors as "
             "safetensors.";
    case FileKind::lfs_pointer:
      return "Fetch the file itself: git lfs pull.";
    case FileKind::html:
      return "The download saved an error page; download the file again.";
    default:
      return {};
  }
}

std::string resave_hint(const std::string& path) {
  return "Save its tensors as safetensors: " + command(path, kLoad);
}

std::string resave_part_hint(const std::string& path, std::string_view key) {
  return "Save that part alone: " +
         command(path, fmt::format("{}[\"{}\"]", kLoad, safe_to_paste(key, "KEY")));
}

std::string resave_script_hint(const std::string& path) {
  return "Only if you trust its author: " +
         command(path, "torch.jit.load(\"{}\", map_location=\"cpu\").state_dict()");
}

}  // namespace moelora
