#include "lib/io/npz.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <optional>

#include "lib/base/crc32.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/zip_fields.h"

namespace moelora {
namespace {

using Bytes = std::span<const std::byte>;

constexpr size_t kEndBytes = 22, kCentralBytes = 46, kLocalBytes = 30;
constexpr uint64_t kMostEntries = 10'000;
constexpr uint16_t kStored = 0, kDeflated = 8, kUtf8Flag = 1 << 11, kZip64Field = 1;
constexpr uint64_t kMostInflation = 1032;  // deflate: 258 bytes by two bits
constexpr std::string_view kEnding = ".npy";

struct Record {
  std::string name;
  uint16_t method = 0;
  uint32_t crc = 0;
  uint64_t packed = 0, size = 0, header = 0;
};

// The fields that a local header and a directory entry share, from the flags on.
struct Shared {
  uint16_t flags, method;
  uint32_t crc;
  uint64_t packed, size;
  uint16_t name_bytes, extra_bytes;

  explicit Shared(ZipFields& fields) {
    flags = fields.u16();
    method = fields.u16();
    fields.skip(4);  // time and date
    crc = fields.u32();
    packed = fields.u32();
    size = fields.u32();
    name_bytes = fields.u16();
    extra_bytes = fields.u16();
  }
};

class NpzReader {
 public:
  explicit NpzReader(const File& file) : file_(file) {}

  std::map<std::string, NpyArray> read() {
    read_end();
    read_directory();
    std::map<std::string, NpyArray> out;
    for (size_t i = 0; i < records_.size(); ++i) {
      const uint64_t end = i + 1 < records_.size() ? records_[i + 1].header : directory_begin_;
      const Record& record = records_[i];
      const std::string name = record.name.substr(0, record.name.size() - kEnding.size());
      const std::vector<std::byte> bytes = unpack(record, find_data(record, end));
      if (!out.emplace(name, parse_npy(bytes, where(record.name))).second)
        refuse(record.name, "stands twice in the archive");
    }
    return out;
  }

 private:
  void read_end() {
    if (file_.size() < kEndBytes) refuse("", "is too short for a zip archive");
    const auto bytes = bytes_at(file_.size() - kEndBytes, kEndBytes);
    ZipFields fields(bytes);
    if (fields.u32() != kZipEnd)
      refuse("", "does not end with the end record of a zip archive (a comment, or cut short)");
    const uint16_t disk = fields.u16(), first_disk = fields.u16(), here = fields.u16();
    entries_ = fields.u16();
    const uint32_t length = fields.u32(), begin = fields.u32();
    const uint16_t comment = fields.u16();
    if (disk != 0 || first_disk != 0 || here != entries_ || comment != 0)
      refuse("", "has an end record that numpy does not write");
    if (entries_ > kMostEntries)
      refuse("", fmt::format("holds {} arrays, at most {} are read", entries_, kMostEntries));
    directory_begin_ = begin;
    directory_bytes_ = length;
    if (directory_begin_ + directory_bytes_ != file_.size() - kEndBytes)
      refuse("", "has a directory that does not lie where its end record says");
  }

  void read_directory() {
    const auto bytes = bytes_at(directory_begin_, directory_bytes_);
    Bytes rest(bytes);
    for (uint64_t i = 0; i < entries_; ++i) rest = rest.subspan(read_entry(rest));
    if (!rest.empty()) refuse("", "has bytes in its directory after the last record");
    if (records_.empty() || records_[0].header != 0)
      refuse("", "is empty, or has bytes before its first record");
  }

  // Returns the entry's length.
  size_t read_entry(Bytes rest) {
    if (rest.size() < kCentralBytes) refuse("", "has a directory that was cut short");
    ZipFields fields(rest);
    if (fields.u32() != kZipCentral) refuse("", "has a directory that was cut short");
    fields.skip(4);  // versions
    const Shared shared(fields);
    const uint16_t comment = fields.u16(), disk = fields.u16();
    fields.skip(6);  // attributes
    const uint32_t header = fields.u32();
    const size_t length = kCentralBytes + shared.name_bytes + shared.extra_bytes + comment;
    if (rest.size() < length) refuse("", "has a directory that was cut short");
    const auto* name = reinterpret_cast<const char*>(rest.data()) + kCentralBytes;
    Record record{std::string(name, shared.name_bytes),
                  shared.method,
                  shared.crc,
                  shared.packed,
                  shared.size,
                  header};
    check_entry(record, shared, comment, disk);
    records_.push_back(std::move(record));
    return length;
  }

  void check_entry(const Record& record, const Shared& shared, uint16_t comment, uint16_t disk) {
    const std::string& name = record.name;
    if (!name.ends_with(kEnding) || name.find('\0') != std::string::npos || find_invalid_utf8(name))
      refuse(name, "is no array: its name does not end in .npy");
    if ((shared.flags & ~kUtf8Flag) != 0)
      refuse(name, fmt::format("has the zip flags {:#06x} (encrypted?)", shared.flags));
    if (record.method != kStored && record.method != kDeflated)
      refuse(name, fmt::format("is compressed by method {}, read are 0 and 8", record.method));
    if (comment != 0 || disk != 0 || shared.extra_bytes != 0)
      refuse(name, "has a comment, a disk or extra fields, which numpy does not write");
    if (record.method == kStored && record.packed != record.size)
      refuse(name, "has another size stored than unpacked");
    if (record.header >= directory_begin_ ||
        (!records_.empty() && record.header <= records_.back().header))
      refuse(name, "does not lie after the record before it");
    total_ += record.size;
    if (total_ > kMaxNpzBytes)
      refuse(name, fmt::format("makes the arrays larger than {} bytes", kMaxNpzBytes));
    if (record.size / kMostInflation > record.packed)
      refuse(name, fmt::format("declares more bytes than deflate can hold in {}", record.packed));
  }

  // Where the record's data begin; the local header must repeat the directory.
  uint64_t find_data(const Record& record, uint64_t end) const {
    if (end - record.header < kLocalBytes) refuse(record.name, "overlaps what lies after it");
    const auto bytes = bytes_at(record.header, kLocalBytes);
    ZipFields fields(bytes);
    if (fields.u32() != kZipLocal) refuse(record.name, "has no local header");
    fields.skip(2);  // version
    Shared local(fields);
    const uint64_t before = kLocalBytes + uint64_t{local.name_bytes} + local.extra_bytes;
    if (end - record.header != before + record.packed)
      refuse(record.name, "overlaps what lies after it, or leaves a gap");
    const auto tail = bytes_at(record.header + kLocalBytes, before - kLocalBytes);
    check_extra(record, Bytes(tail).subspan(local.name_bytes), local);
    const std::string_view name(reinterpret_cast<const char*>(tail.data()), local.name_bytes);
    if (name != record.name || local.method != record.method || local.crc != record.crc ||
        local.packed != record.packed || local.size != record.size)
      refuse(record.name, "has a local header that differs from the directory");
    return record.header + before;
  }

  // numpy opens its records with force_zip64: the sizes stand in a zip64 field.
  void check_extra(const Record& record, Bytes extra, Shared& local) const {
    if (extra.empty()) return;
    ZipFields fields(extra);
    if (extra.size() != 20 || fields.u16() != kZip64Field || fields.u16() != 16)
      refuse(record.name, "has extra fields that numpy does not write");
    const uint64_t size = fields.u64(), packed = fields.u64();
    if (local.size == kMax32) local.size = size;
    if (local.packed == kMax32) local.packed = packed;
    if (size != local.size || packed != local.packed)
      refuse(record.name, "has a zip64 field that differs from its sizes");
  }

  std::vector<std::byte> unpack(const Record& record, uint64_t begin) const {
    std::vector<std::byte> packed = bytes_at(begin, record.packed);
    std::vector<std::byte> out =
        record.method == kStored ? std::move(packed) : inflated(record, packed);
    if (moelora::crc32(0, out) != record.crc)
      refuse(record.name, "is damaged: its CRC-32 is another");
    return out;
  }

  std::vector<std::byte> inflated(const Record& record, std::vector<std::byte>& packed) const {
    std::vector<std::byte> out(record.size);
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) refuse(record.name, "cannot be inflated");
    stream.next_in = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_in = static_cast<uInt>(packed.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    const int status = inflate(&stream, Z_FINISH);
    const bool whole = status == Z_STREAM_END && stream.avail_out == 0 && stream.avail_in == 0;
    inflateEnd(&stream);
    if (!whole) refuse(record.name, "is damaged: it does not inflate to the size it declares");
    return out;
  }

  std::vector<std::byte> bytes_at(uint64_t begin, uint64_t count) const {
    std::vector<std::byte> out(count);
    file_.read(begin, count, out.data());
    return out;
  }

  std::string where(const std::string& name) const {
    return file_.path() + (name.empty() ? "" : ": " + printable(name));
  }
  [[noreturn]] void refuse(const std::string& name, const std::string& what) const {
    throw Error(where(name), what, "save it again with numpy.savez");
  }

  const File& file_;
  uint64_t entries_ = 0, directory_begin_ = 0, directory_bytes_ = 0, total_ = 0;
  std::vector<Record> records_;
};

}  // namespace

std::map<std::string, NpyArray> read_npz(const File& file) { return NpzReader(file).read(); }

}  // namespace moelora
