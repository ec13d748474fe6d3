#include "lib/io/zip_end.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/io/zip_fields.h"

namespace moelora {
namespace {

constexpr uint64_t kEndBytes = 22, kLocatorBytes = 20, kEnd64Bytes = 56, kMaxComment = 65535;
constexpr const char* kCutHint = "Download or copy the file again.";
constexpr const char* kOddHint = "torch.save writes no such archive; save the weights again.";

std::vector<std::byte> bytes_at(const File& file, uint64_t begin, uint64_t count) {
  std::vector<std::byte> out(count);
  file.read(begin, count, out.data());
  return out;
}

// The end record somewhere before the end of the file: is it a comment that follows, or junk?
[[noreturn]] void refuse_end(const File& file) {
  const uint64_t count = std::min(file.size(), kEndBytes + kMaxComment);
  const auto tail = bytes_at(file, file.size() - count, count);
  for (uint64_t at = count < kEndBytes ? 0 : count - kEndBytes + 1; at-- > 0;) {
    ZipFields fields(std::span<const std::byte>(tail).subspan(at, kEndBytes));
    if (fields.u32() != kZipEnd) continue;
    fields.skip(16);
    const uint64_t comment = fields.u16(), after = count - at - kEndBytes;
    if (after < comment)
      throw Error(
          in_file(file.path()),
          fmt::format("announces a zip comment of {} bytes and has {} of them", comment, after),
          kCutHint);
    throw Error(in_file(file.path()),
                after == comment
                    ? fmt::format("has a zip comment of {} bytes, torch.save writes none", after)
                    : fmt::format("has {} bytes after the end of its zip archive", after - comment),
                kOddHint);
  }
  throw Error(in_file(file.path()),
              "begins as a zip archive but has no zip directory: it was cut short", kCutHint);
}

class EndReader {
 public:
  explicit EndReader(const File& file) : file_(file) {}

  ZipEnd read() {
    read_end();
    uint64_t records_begin = file_.size() - kEndBytes;
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
    if (file_.size() < kEndBytes) refuse_end(file_);
    const auto bytes = bytes_at(file_, file_.size() - kEndBytes, kEndBytes);
    ZipFields fields(bytes);
    if (fields.u32() != kZipEnd) refuse_end(file_);
    const uint16_t disk = fields.u16(), first_disk = fields.u16(), here = fields.u16();
    end_.entries = fields.u16();
    end_.bytes = fields.u32();
    end_.begin = fields.u32();
    if (fields.u16() != 0) refuse_end(file_);
    if (disk != 0 || first_disk != 0 || here != end_.entries) refuse_disks();
    saturated_ = end_.entries == kMax16 || end_.bytes == kMax32 || end_.begin == kMax32;
  }

  bool has_locator() {
    if (file_.size() < kEndBytes + kLocatorBytes) return false;
    const auto bytes = bytes_at(file_, file_.size() - kEndBytes - kLocatorBytes, kLocatorBytes);
    ZipFields fields(bytes);
    if (fields.u32() != kZipLocator64) return false;
    const uint32_t disk = fields.u32();
    end64_begin_ = fields.u64();
    if (disk != 0 || fields.u32() != 1) refuse_disks();
    return true;
  }

  void read_end64() {
    const uint64_t locator = file_.size() - kEndBytes - kLocatorBytes;
    if (locator < kEnd64Bytes || end64_begin_ != locator - kEnd64Bytes)
      refuse(fmt::format("the zip64 locator at {} points to {}, the record must end before it",
                         locator, end64_begin_));
    const auto record = bytes_at(file_, end64_begin_, kEnd64Bytes);
    ZipFields fields(record);
    if (fields.u32() != kZipEnd64) refuse("there is no zip64 record where the locator points");
    if (fields.u64() != kEnd64Bytes - 12) refuse("the zip64 record is longer than torch writes it");
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
          fmt::format("the directory of {} bytes at {} does not end where the end records begin, "
                      "at {}",
                      end_.bytes, end_.begin, records_begin));
    if (end_.entries > kMaxZipEntries || end_.bytes > kMaxZipDirectoryBytes)
      refuse(fmt::format("the directory has {} records in {} bytes, at most {} in {} are read",
                         end_.entries, end_.bytes, kMaxZipEntries, kMaxZipDirectoryBytes));
  }

  [[noreturn]] void refuse_disks() const { refuse("it is one disk of several"); }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(in_file(file_.path()), "its zip directory is inconsistent: " + what, kOddHint);
  }

  const File& file_;
  ZipEnd end_;
  bool saturated_ = false;
  uint64_t end64_begin_ = 0;
};

}  // namespace

ZipEnd read_zip_end(const File& file) { return EndReader(file).read(); }

}  // namespace moelora
