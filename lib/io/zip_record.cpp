#include "lib/io/zip_record.h"

#include <fmt/format.h>

#include <string_view>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

using Bytes = std::span<const std::byte>;

constexpr size_t kLocalBytes = 30;
constexpr uint16_t kZip64Field = 1, kPaddingField = 0x4246;  // "FB"

class LocalCheck {
 public:
  LocalCheck(const File& file, ZipRecord& record, uint64_t end)
      : file_(file), record_(record), room_(end - record.header) {}

  void run() {
    if (room_ < kLocalBytes) refuse_overlap();
    std::vector<std::byte> bytes = bytes_at(record_.header, kLocalBytes);
    ZipFields fields(bytes);
    if (fields.u32() != kZipLocal) refuse("has no local header where the directory points");
    fields.skip(2);  // version
    local_ = ZipHeader::read(fields);
    const uint64_t before_data = kLocalBytes + local_.name_bytes + local_.extra_bytes;
    if (room_ < before_data || room_ - before_data < record_.zip.size) refuse_overlap();
    record_.zip.begin = record_.header + before_data;
    bytes = bytes_at(record_.header + kLocalBytes, before_data - kLocalBytes);
    check_name(Bytes(bytes).first(local_.name_bytes));
    check_numbers(Bytes(bytes).subspan(local_.name_bytes));
    check_descriptor(room_ - before_data - record_.zip.size);
  }

 private:
  bool descriptor_follows() const { return (record_.flags & ZipHeader::kDescriptorFollows) != 0; }

  void check_name(Bytes name) const {
    if (std::string_view(reinterpret_cast<const char*>(name.data()), name.size()) !=
        record_.zip.name)
      refuse("has another name in its local header");
  }

  // A 0 here leaves the number to the descriptor.
  bool same(uint64_t local, uint64_t expected) const {
    return local == expected || (local == 0 && descriptor_follows());
  }

  void check_numbers(Bytes extra) const {
    if (local_.method != 0 || local_.flags != record_.flags)
      refuse("has another method or other flags in its local header");
    if (!same(local_.crc, record_.zip.crc)) refuse("has another CRC in its local header");
    uint64_t size = local_.size, stored = local_.stored, header = record_.header;
    read_zip_extra(file_, record_.zip.name, extra, wide_numbers(size, stored, header));
    if (!same(size, record_.zip.size) || !same(stored, record_.zip.size))
      refuse("has another size in its local header");
    if (header != record_.header) refuse("has another offset in its local header");
  }

  // torch leaves the 32-bit sizes 0 and has a zip64 field all the same: the size and a 0 where the
  // size needs 64 bits, then the offset where that does.
  std::vector<uint64_t*> wide_numbers(uint64_t& size, uint64_t& stored, uint64_t& header) const {
    const bool torch = local_.size == 0 && local_.stored == 0 && descriptor_follows();
    const bool large = torch && record_.zip.size >= kMax32;
    std::vector<uint64_t*> out;
    if (local_.size == kMax32 || large) out.push_back(&size);
    if (local_.stored == kMax32 || large) out.push_back(&stored);
    if (torch && record_.header >= kMax32) out.push_back(&header);
    return out;
  }

  void check_descriptor(uint64_t room) const {
    if (!descriptor_follows()) {
      if (room != 0) refuse_gap(room);
      return;
    }
    if (room != 16 && room != 24) refuse_gap(room);
    const auto bytes = bytes_at(record_.zip.begin + record_.zip.size, room);
    ZipFields fields(bytes);
    const uint32_t mark = fields.u32(), crc = fields.u32();
    const uint64_t stored = room == 24 ? fields.u64() : fields.u32();
    const uint64_t size = room == 24 ? fields.u64() : fields.u32();
    if (mark != kZipDescriptor || crc != record_.zip.crc || stored != record_.zip.size ||
        size != record_.zip.size)
      refuse("has a data descriptor that differs from its directory entry");
  }

  std::vector<std::byte> bytes_at(uint64_t begin, uint64_t count) const {
    std::vector<std::byte> out(count);
    file_.read(begin, count, out.data());
    return out;
  }

  [[noreturn]] void refuse_overlap() const { refuse("overlaps what lies after it"); }
  [[noreturn]] void refuse_gap(uint64_t bytes) const {
    refuse(fmt::format("is followed by {} bytes that belong to no record", bytes));
  }
  [[noreturn]] void refuse(const std::string& what) const {
    refuse_zip(file_, record_.zip.name, what);
  }

  const File& file_;
  ZipRecord& record_;
  uint64_t room_;
  ZipHeader local_;
};

}  // namespace

ZipHeader ZipHeader::read(ZipFields& fields) {
  ZipHeader out;
  out.flags = fields.u16();
  out.method = fields.u16();
  fields.skip(4);  // time and date
  out.crc = fields.u32();
  out.stored = fields.u32();
  out.size = fields.u32();
  out.name_bytes = fields.u16();
  out.extra_bytes = fields.u16();
  return out;
}

void read_zip_extra(const File& file, const std::string& name, Bytes extra,
                    const std::vector<uint64_t*>& wide) {
  bool seen = false;
  while (!extra.empty()) {
    if (extra.size() < 4) refuse_zip(file, name, "has extra fields that were cut short");
    ZipFields fields(extra);
    const uint16_t id = fields.u16(), bytes = fields.u16();
    if (extra.size() - 4 < bytes) refuse_zip(file, name, "has extra fields that were cut short");
    if (id == kZip64Field) {
      if (seen || wide.empty() || bytes != 8 * wide.size())
        refuse_zip(file, name, "has a zip64 field that does not fit its sizes");
      for (uint64_t* value : wide) *value = fields.u64();
      seen = true;
    } else if (id != kPaddingField) {
      refuse_zip(file, name,
                 fmt::format("has the extra field {:#06x}, which torch.save does not write", id));
    }
    extra = extra.subspan(4 + size_t{bytes});
  }
  if (!seen && !wide.empty()) refuse_zip(file, name, "needs a zip64 field and has none");
}

void check_zip_local(const File& file, ZipRecord& record, uint64_t end) {
  LocalCheck(file, record, end).run();
}

void refuse_zip(const File& file, const std::string& name, const std::string& what) {
  throw Error(in_file(file.path(), name.empty() ? "" : printable(name)), what,
              "torch.save writes no such archive; save the weights again.");
}

}  // namespace moelora
