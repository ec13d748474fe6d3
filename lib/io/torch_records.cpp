#include "lib/io/torch_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "lib/base/crc32.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/base/utf8.h"
#include "lib/io/sniff.h"

namespace moelora {
namespace {

constexpr uint64_t kSmallRecord = 64;
constexpr int kLastVersion = 10;  // kMaxSupportedFileFormatVersion of torch 2.11

class Sorter {
 public:
  Sorter(const File& file, const std::vector<ZipEntry>& directory)
      : file_(file), directory_(directory) {
    const std::string& first = directory.front().name;
    out_.root = first.substr(0, first.find('/'));
  }

  TorchRecords sort() {
    for (const ZipEntry& entry : directory_) check_root(entry);
    for (const ZipEntry& entry : directory_) add(entry);
    if (out_.pickle == nullptr)
      refuse("has no data.pkl: it is a zip archive, but torch.save did not write it");
    if (!has_version_) refuse("has no record \"version\", which torch.save always writes");
    return std::move(out_);
  }

 private:
  std::string_view inner(const ZipEntry& entry) const {
    return std::string_view(entry.name).substr(out_.root.size() + 1);
  }

  void check_root(const ZipEntry& entry) const {
    if (!entry.name.starts_with(out_.root + "/"))
      refuse(fmt::format("holds {} outside its folder {}: torch.save did not write it",
                         quoted(entry.name), quoted(out_.root)));
  }

  void add(const ZipEntry& entry) {
    const std::string_view name = inner(entry);
    if (name == "data.pkl") {
      out_.pickle = &entry;
    } else if (is_storage(name)) {
      out_.storages[name.substr(5)] = &entry;
    } else if (name == "version" || name == ".data/version") {
      check_version(entry);
    } else if (name == "byteorder") {
      check_byteorder(entry);
    } else if (name != ".format_version" && name != ".storage_alignment" &&
               name != ".data/serialization_id") {
      refuse(fmt::format("holds the record {}, which torch.save does not write", quoted(name)));
    }
  }

  // torch finds records whatever their case; digits have none.
  static bool is_storage(std::string_view name) {
    return name.starts_with("data/") && name.size() > 5 &&
           name.find_first_not_of("0123456789", 5) == std::string_view::npos;
  }

  std::string small_text(const ZipEntry& entry) const {
    if (entry.size > kSmallRecord)
      refuse(fmt::format("has a record {} of {} bytes", quoted(entry.name), entry.size));
    std::string out(entry.size, '\0');
    file_.read(entry.begin, out.size(), reinterpret_cast<std::byte*>(out.data()));
    return out;
  }

  void check_version(const ZipEntry& entry) {
    std::string text = small_text(entry);
    if (text.ends_with('\n')) text.pop_back();
    int version = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), version);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || version < 1 ||
        version > kLastVersion)
      refuse(
          fmt::format("has the format version {}, 1 to {} are read", quoted(text), kLastVersion));
    has_version_ = true;
  }

  void check_byteorder(const ZipEntry& entry) const {
    const std::string order = small_text(entry);
    if (order == "little") return;
    refuse(order == "big" ? "holds big-endian numbers, only little-endian ones are read"
                          : fmt::format("has the byte order {}", quoted(order)));
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(in_file(file_.path()), what, resave_hint(file_.path()));
  }

  const File& file_;
  const std::vector<ZipEntry>& directory_;
  TorchRecords out_;
  bool has_version_ = false;
};

// ---- checksums ----

constexpr uint64_t kBlock = uint64_t{4} << 20;

// A part of a record that one thread reads at a time.
struct Block {
  const ZipEntry* entry;
  uint64_t begin, bytes;
  uint32_t crc = 0;
};

std::vector<Block> cut(const std::vector<ZipEntry>& directory) {
  std::vector<Block> out;
  for (const ZipEntry& entry : directory)
    for (uint64_t at = 0; at < entry.size; at += kBlock)
      out.push_back({&entry, entry.begin + at, std::min(kBlock, entry.size - at)});
  return out;
}

void read_crcs(const File& file, std::vector<Block>& blocks) {
  const int threads = available_threads();
  std::vector<std::vector<std::byte>> buffers(static_cast<size_t>(threads));
  parallel_for(static_cast<int64_t>(blocks.size()), threads, [&](int64_t item, int worker) {
    Block& block = blocks[static_cast<size_t>(item)];
    std::vector<std::byte>& buffer = buffers[static_cast<size_t>(worker)];
    if (buffer.size() < block.bytes) buffer.resize(block.bytes);
    file.read(block.begin, block.bytes, buffer.data());
    block.crc = crc32(0, std::span(buffer).first(block.bytes));
  });
}

}  // namespace

std::vector<ZipEntry> read_torch_directory(const File& file) {
  return read_zip_directory(file, [&](const std::string& name) {
    const std::string_view inner = std::string_view(name).substr(name.find('/') + 1);
    if (inner == "constants.pkl" || inner.starts_with("code/"))
      throw Error(in_file(file.path()), "is a TorchScript archive: it holds code, not only tensors",
                  resave_script_hint(file.path()));
  });
}

TorchRecords sort_torch_records(const File& file, const std::vector<ZipEntry>& directory) {
  return Sorter(file, directory).sort();
}

bool check_torch_crcs(const File& file, const std::vector<ZipEntry>& directory) {
  if (std::all_of(directory.begin(), directory.end(), [](auto& entry) { return entry.crc == 0; }))
    return false;
  std::vector<Block> blocks = cut(directory);
  read_crcs(file, blocks);
  for (size_t i = 0; i < blocks.size();) {
    const ZipEntry* const entry = blocks[i].entry;
    uint32_t crc = 0;
    for (; i < blocks.size() && blocks[i].entry == entry; ++i)
      crc = crc32_join(crc, blocks[i].crc, blocks[i].bytes);
    if (crc != entry->crc)
      throw Error(
          in_file(file.path(), printable(entry->name)),
          fmt::format("has the CRC {:08x}, the archive says {:08x}: it is damaged", crc,
                      entry->crc),
          "Download or copy the file again; --ignore-zip-crc of lora-convert reads it as it is.");
  }
  return true;
}

}  // namespace moelora
