#include "lib/io/sniff.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace moelora {
namespace {

struct Magic {
  std::string_view bytes;
  FileKind kind;
};

constexpr std::array kMagic = {
    Magic{"PK\3\4", FileKind::zip},     Magic{"\x80\2", FileKind::pickle},
    Magic{"\x80\3", FileKind::pickle},  Magic{"\x80\4", FileKind::pickle},
    Magic{"\x80\5", FileKind::pickle},  Magic{"version https://git-lfs", FileKind::lfs_pointer},
    Magic{"GGUF", FileKind::gguf},      Magic{"\x89HDF", FileKind::hdf5},
    Magic{"<!DOCTYPE", FileKind::html}, Magic{"<!doctype", FileKind::html},
    Magic{"<html", FileKind::html},     Magic{"{", FileKind::json},
};

// A hint may be pasted into a shell, and a file's name is not ours.
std::string_view safe_to_paste(std::string_view name) {
  constexpr std::string_view kSafe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return name.find_first_not_of(kSafe) == std::string_view::npos ? name : "FILE";
}

}  // namespace

FileKind sniff(const File& file) {
  std::array<char, 24> head{};
  const uint64_t count = std::min<uint64_t>(head.size(), file.size());
  file.read(0, count, reinterpret_cast<std::byte*>(head.data()));
  const std::string_view begin(head.data(), count);
  const auto it = std::find_if(kMagic.begin(), kMagic.end(),
                               [&](const Magic& m) { return begin.starts_with(m.bytes); });
  return it == kMagic.end() ? FileKind::unknown : it->kind;
}

std::string_view describe(FileKind kind) {
  switch (kind) {
    case FileKind::zip:
      return "a zip archive (torch.save writes one)";
    case FileKind::pickle:
      return "a Python pickle (an old torch.save writes one)";
    case FileKind::lfs_pointer:
      return "a Git LFS pointer";
    case FileKind::gguf:
      return "a GGUF file";
    case FileKind::hdf5:
      return "an HDF5 file";
    case FileKind::html:
      return "an HTML page";
    case FileKind::json:
      return "JSON text";
    case FileKind::unknown:
      break;
  }
  return "of an unknown kind";
}

std::string mend(FileKind kind) {
  switch (kind) {
    case FileKind::zip:
    case FileKind::pickle:
      return resave_hint("FILE", "adapter_model.safetensors");
    case FileKind::lfs_pointer:
      return "Fetch the file itself: git lfs pull.";
    case FileKind::html:
      return "The download saved an error page; download the file again.";
    default:
      return {};
  }
}

std::string resave_hint(std::string_view from, std::string_view to) {
  return fmt::format(
      "Save them as safetensors: python3 -c 'import torch, safetensors.torch as st; "
      "st.save_file(torch.load(\"{}\", weights_only=True), \"{}\", {{\"format\": \"pt\"}})'",
      safe_to_paste(from), safe_to_paste(to));
}

}  // namespace moelora
