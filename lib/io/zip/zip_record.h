#pragma once

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/io/file.h"

namespace moelora {

// How one program writes its archives. What it never writes is refused.
struct ZipWriter {
  std::string_view name;     // for messages
  std::string_view hint;     // how to get an archive as it writes them
  std::string_view methods;  // in words, for messages
  bool deflates;             // method 8 beside 0
  uint16_t flags;            // what may be set of them; the writer's own where it always sets them
  bool pads;                 // with an extra field "FB"
  bool always_zip64;         // a zip64 field with both sizes in every local header
};

inline constexpr uint16_t kZipDescriptorFollows = 1 << 3, kZipUtf8 = 1 << 11;

inline constexpr ZipWriter kTorchSave = {
    .name = "torch.save",
    .hint = "torch.save writes no such archive; save the weights again.",
    .methods = "only stores",
    .deflates = false,
    .flags = kZipDescriptorFollows | kZipUtf8,
    .pads = true,
    .always_zip64 = false,
};
inline constexpr ZipWriter kNumpySavez = {
    .name = "numpy.savez",
    .hint = "save it again with numpy.savez",
    .methods = "stores or deflates",
    .deflates = true,
    .flags = kZipUtf8,
    .pads = false,
    .always_zip64 = true,
};

// One record of a zip archive.
struct ZipEntry {
  std::string name;
  uint64_t begin = 0, stored = 0;  // of its data: absolute offset, and bytes in the file
  uint64_t size = 0;               // after inflation; `stored` where nothing is compressed
  uint32_t crc = 0;                // as the directory says; nobody has looked at the data
  uint16_t method = 0, flags = 0;
  uint64_t header = 0;  // where its local header lies
};

// An archive while it is read.
struct ZipInput {
  const File& file;
  const ZipWriter& writer;

  std::vector<std::byte> bytes(uint64_t begin, uint64_t count) const;
  // Throws Error at PATH, or at "PATH: NAME" when there is a name.
  template <class... T>
  [[noreturn]] void refuse(const std::string& name, fmt::format_string<T...> what,
                           T&&... values) const {
    fail(name, fmt::format(what, std::forward<T>(values)...));
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& what) const;
};

// Reads the little-endian fields of a zip structure one after the other.
// REQUIRES: the structure was checked to be as long as what is read of it.
class ZipFields {
 public:
  explicit ZipFields(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint16_t u16() { return static_cast<uint16_t>(number(2)); }
  uint32_t u32() { return static_cast<uint32_t>(number(4)); }
  uint64_t u64() { return number(8); }
  void skip(size_t count) { bytes_ = bytes_.subspan(count); }

 private:
  uint64_t number(size_t width) {
    uint64_t out = 0;
    for (size_t i = width; i-- > 0;) out = out << 8 | static_cast<uint64_t>(bytes_[i]);
    skip(width);
    return out;
  }

  std::span<const std::byte> bytes_;
};

inline constexpr uint16_t kMax16 = 0xFFFF;
inline constexpr uint32_t kMax32 = 0xFFFFFFFF;  // "see the zip64 field"

// What a local header and a directory entry both say, side by side in both.
struct ZipHeader {
  uint16_t flags = 0, method = 0;
  uint32_t crc = 0, stored = 0, size = 0;
  uint16_t name_bytes = 0, extra_bytes = 0;

  static ZipHeader read(ZipFields& fields);
};

// Reads the extra fields of a header: a zip64 field with exactly the numbers `wide`, absent when
// there are none, and the writer's padding. Nothing else may be there.
void read_zip_extra(const ZipInput& zip, const std::string& name, std::span<const std::byte> extra,
                    const std::vector<uint64_t*>& wide);

// The record's local header, data and data descriptor fill the file from entry.header to `end`, and
// both say what the directory says. Sets entry.begin.
void check_zip_local(const ZipInput& zip, ZipEntry& entry, uint64_t end);

// The data of a record, inflated, whose CRC-32 is as declared. Deflate cannot hold more than 1032
// bytes in one: what declares more is refused before memory is taken. Throws Error.
std::vector<std::byte> read_zip_record(const ZipInput& zip, const ZipEntry& entry);

}  // namespace moelora
