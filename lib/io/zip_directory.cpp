#include "lib/io/zip_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string_view>

#include "lib/base/utf8.h"
#include "lib/io/zip_end.h"
#include "lib/io/zip_record.h"

namespace moelora {
namespace {

using Bytes = std::span<const std::byte>;

constexpr size_t kCentralBytes = 46;
constexpr uint16_t kEncrypted = 1 | 1 << 6 | 1 << 13;

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

void check_names(const File& file, const std::vector<ZipRecord>& records) {
  std::vector<std::string_view> sorted;
  sorted.reserve(records.size());
  for (const ZipRecord& record : records) {
    const std::string& name = record.zip.name;
    if (!is_plain_path(name)) refuse_zip(file, name, "is no plain path inside the archive");
    sorted.push_back(name);
  }
  std::sort(sorted.begin(), sorted.end());
  const auto twin = std::adjacent_find(sorted.begin(), sorted.end());
  if (twin != sorted.end()) refuse_zip(file, std::string(*twin), "stands twice in the archive");
}

// ---- the directory ----

class DirectoryReader {
 public:
  using SeeName = std::function<void(const std::string& name)>;

  DirectoryReader(const File& file, const ZipEnd& end, const SeeName& see_name)
      : file_(file), end_(end), see_name_(see_name), bytes_(end.bytes), rest_(bytes_) {
    file.read(end.begin, bytes_.size(), bytes_.data());
  }

  std::vector<ZipRecord> read() {
    for (uint64_t i = 0; i < end_.entries; ++i) read_entry();
    if (!rest_.empty())
      refuse(fmt::format("has {} bytes in its zip directory after the {} records", rest_.size(),
                         end_.entries));
    if (records_.empty()) refuse("is an empty zip archive");
    if (records_[0].header != 0)
      refuse(fmt::format("has {} bytes before its first record", records_[0].header));
    return std::move(records_);
  }

 private:
  void read_entry() {
    if (rest_.size() < kCentralBytes) refuse_cut();
    ZipFields fields(rest_);
    if (fields.u32() != kZipCentral) refuse_cut();
    fields.skip(4);  // versions
    const ZipHeader header = ZipHeader::read(fields);
    const uint16_t comment_bytes = fields.u16(), disk = fields.u16();
    fields.skip(6);  // attributes
    const uint32_t offset = fields.u32();
    take(kCentralBytes);
    const Bytes name = take(header.name_bytes);
    const Bytes extra = take(header.extra_bytes);
    take(comment_bytes);
    ZipRecord record;
    record.zip.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
    if (see_name_) see_name_(record.zip.name);
    check_kind(record.zip.name, header);
    if (comment_bytes != 0) refuse_zip(file_, record.zip.name, "has a zip comment");
    if (disk != 0) refuse_zip(file_, record.zip.name, "lies on another disk");
    read_numbers(header, offset, extra, record);
    records_.push_back(std::move(record));
  }

  Bytes take(size_t count) {
    if (rest_.size() < count) refuse_cut();
    const Bytes out = rest_.first(count);
    rest_ = rest_.subspan(count);
    return out;
  }

  void check_kind(const std::string& name, const ZipHeader& header) const {
    if ((header.flags & kEncrypted) != 0) refuse_zip(file_, name, "is encrypted");
    if (header.method != 0)
      refuse_zip(file_, name,
                 fmt::format("is compressed (method {}), torch.save only stores", header.method));
    if ((header.flags & ~(ZipHeader::kDescriptorFollows | ZipHeader::kUtf8)) != 0)
      refuse_zip(file_, name,
                 fmt::format("has the zip flags {:#06x}, torch.save sets 0x0808", header.flags));
  }

  void read_numbers(const ZipHeader& header, uint32_t offset, Bytes extra,
                    ZipRecord& record) const {
    const std::string& name = record.zip.name;
    record.flags = header.flags;
    record.zip.crc = header.crc;
    record.zip.size = header.size;
    record.header = offset;
    uint64_t stored = header.stored;
    std::vector<uint64_t*> wide;  // in the order of APPNOTE 4.5.3
    if (header.size == kMax32) wide.push_back(&record.zip.size);
    if (header.stored == kMax32) wide.push_back(&stored);
    if (offset == kMax32) wide.push_back(&record.header);
    read_zip_extra(file_, name, extra, wide);
    if (stored != record.zip.size)
      refuse_zip(file_, name,
                 fmt::format("has {} bytes stored in {}, though nothing is compressed",
                             record.zip.size, stored));
    if (record.header >= end_.begin)
      refuse_zip(file_, name,
                 fmt::format("lies at {}, behind the begin of the directory at {}", record.header,
                             end_.begin));
    if (!records_.empty() && record.header <= records_.back().header)
      refuse_zip(file_, name,
                 fmt::format("lies at {}, not after {} at {}", record.header,
                             quoted(records_.back().zip.name), records_.back().header));
  }

  [[noreturn]] void refuse_cut() const {
    refuse(fmt::format("has a zip directory that ends inside record {} of {}", records_.size() + 1,
                       end_.entries));
  }
  [[noreturn]] void refuse(const std::string& what) const { refuse_zip(file_, "", what); }

  const File& file_;
  const ZipEnd& end_;
  const SeeName& see_name_;
  std::vector<std::byte> bytes_;
  Bytes rest_;  // of bytes_
  std::vector<ZipRecord> records_;
};

}  // namespace

std::vector<ZipEntry> read_zip_directory(
    const File& file, const std::function<void(const std::string& name)>& see_name) {
  const ZipEnd end = read_zip_end(file);
  std::vector<ZipRecord> records = DirectoryReader(file, end, see_name).read();
  check_names(file, records);
  std::vector<ZipEntry> out;
  out.reserve(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    check_zip_local(file, records[i], i + 1 < records.size() ? records[i + 1].header : end.begin);
    out.push_back(std::move(records[i].zip));
  }
  return out;
}

}  // namespace moelora
