#include "lib/io/zip/zip_directory.h"

#include <fmt/core.h>

#include <algorithm>
#include <span>
#include <string_view>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t kLocalMark = 0x04034B50, kCentralMark = 0x02014B50, kEndMark = 0x06054B50,
                   kEnd64Mark = 0x06064B50, kLocator64Mark = 0x07064B50;
constexpr size_t kCentralBytes = 46;
constexpr uint64_t kEndBytes = 22, kLocatorBytes = 20, kEnd64Bytes = 56, kMaxComment = 65535;
constexpr uint64_t kMaxZipEntries = 1'000'000, kMaxZipDirectoryBytes = 100'000'000;
constexpr uint16_t kEncrypted = 1 | 1 << 6 | 1 << 13, kDeflated = 8;
constexpr const char* kCutHint = "Download or copy the file again.";

// ---- the end of the file ----

// What the last bytes of a zip archive say of its directory.
struct ZipEnd {
  uint64_t entries = 0;
  uint64_t begin = 0, bytes = 0;  // where the directory lies; it ends where the end records begin
};

bool begins_with_record(const ZipInput& zip) {
  if (zip.file.size() < 4) return false;
  const auto bytes = zip.bytes(0, 4);
  return ZipFields(bytes).u32() == kLocalMark;
}

// There is no end record at the end of the file: is it a comment that follows, or junk?
[[noreturn]] void refuse_end(const ZipInput& zip) {
  const File& file = zip.file;
  const uint64_t count = std::min(file.size(), kEndBytes + kMaxComment);
  const auto tail = zip.bytes(file.size() - count, count);
  for (uint64_t at = count < kEndBytes ? 0 : count - kEndBytes + 1; at-- > 0;) {
    ZipFields fields(Bytes(tail).subspan(at, kEndBytes));
    if (fields.u32() != kEndMark) continue;
    fields.skip(16);
    const uint64_t comment = fields.u16(), after = count - at - kEndBytes;
    if (after < comment)
      throw Error(
          in_file(file.path()),
          fmt::format("announces a zip comment of {} bytes and has {} of them", comment, after),
          kCutHint);
    if (after > comment)
      zip.refuse("", "has {} bytes after the end of its zip archive", after - comment);
    zip.refuse("", "has a zip comment of {} bytes, {} writes none", after, zip.writer.name);
  }
  if (!begins_with_record(zip)) zip.refuse("", "is not a zip archive");
  throw Error(in_file(file.path()),
              "begins as a zip archive but has no zip directory: it was cut short", kCutHint);
}

class EndReader {
 public:
  explicit EndReader(const ZipInput& zip) : zip_(zip), file_size_(zip.file.size()) {}

  ZipEnd read() {
    read_end();
    uint64_t records_begin = file_size_ - kEndBytes;
    if (has_locator()) {
      read_end64();
      records_begin = end64_begin_;
    } else if (saturated_) {
      refuse("the end record points to a zip64 record, there is none");
    }
    check_bounds(records_begin);
    return end_;
  }

 private:
  void read_end() {
    if (file_size_ < kEndBytes) refuse_end(zip_);
    const auto bytes = zip_.bytes(file_size_ - kEndBytes, kEndBytes);
    ZipFields fields(bytes);
    if (fields.u32() != kEndMark) refuse_end(zip_);
    const uint16_t disk = fields.u16(), first_disk = fields.u16(), here = fields.u16();
    end_.entries = fields.u16();
    end_.bytes = fields.u32();
    end_.begin = fields.u32();
    if (fields.u16() != 0) refuse_end(zip_);
    if (disk != 0 || first_disk != 0 || here != end_.entries) refuse_disks();
    saturated_ = end_.entries == kMax16 || end_.bytes == kMax32 || end_.begin == kMax32;
  }

  bool has_locator() {
    if (file_size_ < kEndBytes + kLocatorBytes) return false;
    const auto bytes = zip_.bytes(file_size_ - kEndBytes - kLocatorBytes, kLocatorBytes);
    ZipFields fields(bytes);
    if (fields.u32() != kLocator64Mark) return false;
    const uint32_t disk = fields.u32();
    end64_begin_ = fields.u64();
    if (disk != 0 || fields.u32() != 1) refuse_disks();
    return true;
  }

  void read_end64() {
    const uint64_t locator = file_size_ - kEndBytes - kLocatorBytes;
    if (locator < kEnd64Bytes || end64_begin_ != locator - kEnd64Bytes)
      refuse("the zip64 locator at {} points to {}, the record must end before it", locator,
             end64_begin_);
    const auto record = zip_.bytes(end64_begin_, kEnd64Bytes);
    ZipFields fields(record);
    if (fields.u32() != kEnd64Mark) refuse("there is no zip64 record where the locator points");
    if (fields.u64() != kEnd64Bytes - 12)
      refuse("the zip64 record is longer than {} writes it", zip_.writer.name);
    fields.skip(4);  // versions
    const uint32_t disk = fields.u32(), first_disk = fields.u32();
    const uint64_t here = fields.u64();
    const uint64_t entries = fields.u64(), bytes = fields.u64(), begin = fields.u64();
    if (disk != 0 || first_disk != 0 || here != entries) refuse_disks();
    if (!same(end_.entries, entries, kMax16) || !same(end_.bytes, bytes, kMax32) ||
        !same(end_.begin, begin, kMax32))
      refuse("the end record and the zip64 record disagree");
    end_ = {entries, begin, bytes};
  }

  static bool same(uint64_t small, uint64_t large, uint64_t saturated) {
    return small == large || small == saturated;
  }

  void check_bounds(uint64_t records_begin) const {
    const auto end = checked_add(end_.begin, end_.bytes);
    if (!end || *end != records_begin)
      refuse(
          "the directory of {} bytes at {} does not end where the end records begin, "
          "at {}",
          end_.bytes, end_.begin, records_begin);
    if (end_.entries > kMaxZipEntries || end_.bytes > kMaxZipDirectoryBytes)
      refuse("the directory has {} records in {} bytes, at most {} in {} are read", end_.entries,
             end_.bytes, kMaxZipEntries, kMaxZipDirectoryBytes);
  }

  [[noreturn]] void refuse_disks() const { refuse("it is one disk of several"); }
  template <class... T>
  [[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) const {
    zip_.refuse("", "its zip directory is inconsistent: {}",
                fmt::format(what, std::forward<T>(values)...));
  }

  const ZipInput& zip_;
  uint64_t file_size_;
  ZipEnd end_;
  bool saturated_ = false;
  uint64_t end64_begin_ = 0;
};

// ---- the directory ----

class DirectoryReader {
 public:
  using SeeName = std::function<void(const std::string& name)>;

  DirectoryReader(const ZipInput& zip, const ZipEnd& end, const SeeName& see_name)
      : zip_(zip),
        end_(end),
        see_name_(see_name),
        bytes_(zip.bytes(end.begin, end.bytes)),
        rest_(bytes_) {}

  std::vector<ZipEntry> read() {
    for (uint64_t i = 0; i < end_.entries; ++i) read_entry();
    if (!rest_.empty())
      refuse("has {} bytes in its zip directory after the {} records", rest_.size(), end_.entries);
    if (entries_.empty()) refuse("is an empty zip archive");
    if (entries_[0].header != 0) refuse("has {} bytes before its first record", entries_[0].header);
    return std::move(entries_);
  }

 private:
  void read_entry() {
    if (rest_.size() < kCentralBytes) refuse_cut();
    ZipFields fields(rest_);
    if (fields.u32() != kCentralMark) refuse_cut();
    fields.skip(4);  // versions
    const ZipHeader header = ZipHeader::read(fields);
    const uint16_t comment_bytes = fields.u16(), disk = fields.u16();
    fields.skip(6);  // attributes
    const uint32_t offset = fields.u32();
    take(kCentralBytes);
    const Bytes name = take(header.name_bytes);
    const Bytes extra = take(header.extra_bytes);
    take(comment_bytes);
    ZipEntry entry;
    entry.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
    if (see_name_) see_name_(entry.name);
    check_kind(entry.name, header);
    if (comment_bytes != 0) zip_.refuse(entry.name, "has a zip comment");
    if (disk != 0) zip_.refuse(entry.name, "lies on another disk");
    read_numbers(header, offset, extra, entry);
    entries_.push_back(std::move(entry));
  }

  Bytes take(size_t count) {
    if (rest_.size() < count) refuse_cut();
    const Bytes out = rest_.first(count);
    rest_ = rest_.subspan(count);
    return out;
  }

  void check_kind(const std::string& name, const ZipHeader& header) const {
    const ZipWriter& writer = zip_.writer;
    if ((header.flags & kEncrypted) != 0) zip_.refuse(name, "is encrypted");
    if (header.method != 0 && !(writer.deflates && header.method == kDeflated))
      zip_.refuse(name, "is compressed (method {}), {} {}", header.method, writer.name,
                  writer.methods);
    if ((header.flags & ~writer.flags) != 0)
      zip_.refuse(name, "has the zip flags {:#06x}, {} sets {:#06x}", header.flags, writer.name,
                  writer.flags);
  }

  void read_numbers(const ZipHeader& header, uint32_t offset, Bytes extra, ZipEntry& entry) const {
    entry.flags = header.flags;
    entry.method = header.method;
    entry.crc = header.crc;
    entry.size = header.size;
    entry.stored = header.stored;
    entry.header = offset;
    std::vector<uint64_t*> wide;  // in the order of APPNOTE 4.5.3
    if (header.size == kMax32) wide.push_back(&entry.size);
    if (header.stored == kMax32) wide.push_back(&entry.stored);
    if (offset == kMax32) wide.push_back(&entry.header);
    read_zip_extra(zip_, entry.name, extra, wide);
    if (entry.method == 0 && entry.stored != entry.size)
      zip_.refuse(entry.name, "has {} bytes stored in {}, though nothing is compressed", entry.size,
                  entry.stored);
    check_order(entry);
  }

  void check_order(const ZipEntry& entry) const {
    if (entry.header >= end_.begin)
      zip_.refuse(entry.name, "lies at {}, behind the begin of the directory at {}", entry.header,
                  end_.begin);
    if (!entries_.empty() && entry.header <= entries_.back().header)
      zip_.refuse(entry.name, "lies at {}, not after {} at {}", entry.header,
                  in_quotes(entries_.back().name), entries_.back().header);
  }

  [[noreturn]] void refuse_cut() const {
    refuse("has a zip directory that ends inside record {} of {}", entries_.size() + 1,
           end_.entries);
  }
  template <class... T>
  [[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) const {
    zip_.refuse("", what, std::forward<T>(values)...);
  }

  const ZipInput& zip_;
  const ZipEnd& end_;
  const SeeName& see_name_;
  std::vector<std::byte> bytes_;
  Bytes rest_;  // of bytes_
  std::vector<ZipEntry> entries_;
};

// ---- names ----

bool climbs(std::string_view name) {
  while (true) {
    const size_t slash = name.find('/');
    const std::string_view part = name.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return true;
    if (slash == std::string_view::npos) return false;
    name.remove_prefix(slash + 1);
  }
}

bool is_plain_path(std::string_view name) {
  const auto odd = [](char c) { return c == '\\' || static_cast<unsigned char>(c) < ' '; };
  return !climbs(name) && !find_invalid_utf8(name) && std::none_of(name.begin(), name.end(), odd);
}

void check_names(const ZipInput& zip, const std::vector<ZipEntry>& entries) {
  std::vector<std::string_view> sorted;
  sorted.reserve(entries.size());
  for (const ZipEntry& entry : entries) {
    if (!is_plain_path(entry.name))
      zip.refuse(entry.name, "is not a plain path inside the archive");
    sorted.push_back(entry.name);
  }
  std::sort(sorted.begin(), sorted.end());
  const auto twin = std::adjacent_find(sorted.begin(), sorted.end());
  if (twin != sorted.end()) zip.refuse(std::string(*twin), "stands twice in the archive");
}

}  // namespace

std::vector<ZipEntry> read_zip_directory(
    const File& file, const ZipWriter& writer,
    const std::function<void(const std::string& name)>& see_name) {
  const ZipInput zip{file, writer};
  const ZipEnd end = EndReader(zip).read();
  std::vector<ZipEntry> entries = DirectoryReader(zip, end, see_name).read();
  check_names(zip, entries);
  for (size_t i = 0; i < entries.size(); ++i)
    check_zip_local(zip, entries[i], i + 1 < entries.size() ? entries[i + 1].header : end.begin);
  return entries;
}

}  // namespace moelora
