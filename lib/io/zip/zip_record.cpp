#include "lib/io/zip/zip_record.h"

#include <fmt/core.h>
#include <zlib.h>

#include <new>

#include "lib/base/crc32.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t kLocalMark = 0x04034B50, kDescriptorMark = 0x08074B50;
constexpr size_t kLocalBytes = 30;
constexpr uint16_t kZip64Field = 1, kPaddingField = 0x4246;  // "FB"
constexpr uint64_t kMostInflation = 1032;                    // 258 bytes by two bits

class LocalCheck {
 public:
  LocalCheck(const ZipInput& zip, ZipEntry& entry, uint64_t end)
      : zip_(zip), entry_(entry), room_(end - entry.header) {}

  void run() {
    if (room_ < kLocalBytes) refuse_overlap();
    std::vector<std::byte> bytes = zip_.bytes(entry_.header, kLocalBytes);
    ZipFields fields(bytes);
    if (fields.u32() != kLocalMark) refuse("has no local header where the directory points");
    fields.skip(2);  // version
    local_ = ZipHeader::read(fields);
    const uint64_t before_data = kLocalBytes + local_.name_bytes + local_.extra_bytes;
    if (room_ < before_data || room_ - before_data < entry_.stored) refuse_overlap();
    entry_.begin = entry_.header + before_data;
    bytes = zip_.bytes(entry_.header + kLocalBytes, before_data - kLocalBytes);
    check_name(Bytes(bytes).first(local_.name_bytes));
    check_numbers(Bytes(bytes).subspan(local_.name_bytes));
    check_descriptor(room_ - before_data - entry_.stored);
  }

 private:
  bool descriptor_follows() const { return (entry_.flags & kZipDescriptorFollows) != 0; }

  void check_name(Bytes name) const {
    if (std::string_view(reinterpret_cast<const char*>(name.data()), name.size()) != entry_.name)
      refuse("has another name in its local header");
  }

  // A 0 here leaves the number to the descriptor.
  bool same(uint64_t local, uint64_t expected) const {
    return local == expected || (local == 0 && descriptor_follows());
  }
  bool same_or_wide(uint32_t local, uint64_t expected) const {
    return local == kMax32 || same(local, expected);
  }

  void check_numbers(Bytes extra) const {
    if (local_.method != entry_.method || local_.flags != entry_.flags)
      refuse("has another method or other flags in its local header");
    if (!same(local_.crc, entry_.crc)) refuse("has another CRC in its local header");
    uint64_t size = local_.size, stored = local_.stored, header = entry_.header;
    if (!same_or_wide(local_.size, entry_.size) || !same_or_wide(local_.stored, entry_.stored))
      refuse_size();
    read_zip_extra(zip_, entry_.name, extra, wide_numbers(!extra.empty(), size, stored, header));
    if (!same(size, entry_.size) || !same(stored, entry_.stored)) refuse_size();
    if (header != entry_.header) refuse("has another offset in its local header");
  }

  // torch leaves the 32-bit sizes 0 and has a zip64 field all the same: the size and a 0 where the
  // size needs 64 bits, then the offset where that does. numpy forces a zip64 field; whether its
  // 32-bit sizes then say "see there" depends on Python.
  std::vector<uint64_t*> wide_numbers(bool has_extra, uint64_t& size, uint64_t& stored,
                                      uint64_t& header) const {
    const bool forced = zip_.writer.always_zip64 && has_extra;
    const bool torch = local_.size == 0 && local_.stored == 0 && descriptor_follows();
    const bool large = forced || (torch && entry_.size >= kMax32);
    std::vector<uint64_t*> out;
    if (local_.size == kMax32 || large) out.push_back(&size);
    if (local_.stored == kMax32 || large) out.push_back(&stored);
    if (torch && entry_.header >= kMax32) out.push_back(&header);
    return out;
  }

  void check_descriptor(uint64_t room) const {
    if (!descriptor_follows()) {
      if (room != 0) refuse_gap(room);
      return;
    }
    if (room != 16 && room != 24) refuse_gap(room);
    const auto bytes = zip_.bytes(entry_.begin + entry_.stored, room);
    ZipFields fields(bytes);
    const uint32_t mark = fields.u32(), crc = fields.u32();
    const uint64_t stored = room == 24 ? fields.u64() : fields.u32();
    const uint64_t size = room == 24 ? fields.u64() : fields.u32();
    if (mark != kDescriptorMark || crc != entry_.crc || stored != entry_.stored ||
        size != entry_.size)
      refuse("has a data descriptor that differs from its directory entry");
  }

  [[noreturn]] void refuse_overlap() const { refuse("overlaps what lies after it"); }
  [[noreturn]] void refuse_size() const { refuse("has another size in its local header"); }
  [[noreturn]] void refuse_gap(uint64_t bytes) const {
    refuse("is followed by {} bytes that belong to no record", bytes);
  }
  template <class... T>
  [[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) const {
    zip_.refuse(entry_.name, what, std::forward<T>(values)...);
  }

  const ZipInput& zip_;
  ZipEntry& entry_;
  uint64_t room_;
  ZipHeader local_;
};

std::vector<std::byte> inflated(const ZipInput& zip, const ZipEntry& entry,
                                std::vector<std::byte>& packed) {
  if (entry.size / kMostInflation > entry.stored)
    zip.refuse(entry.name, "declares more bytes than deflate can hold in {}", entry.stored);
  std::vector<std::byte> out(entry.size);
  z_stream stream{};
  // Z_MEM_ERROR is all that can come: the arguments are constants, the library is the linked one.
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();  // GCOVR_EXCL_BR_LINE
  stream.next_in = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int status = inflate(&stream, Z_FINISH);
  const bool whole = status == Z_STREAM_END && stream.avail_out == 0 && stream.avail_in == 0;
  inflateEnd(&stream);
  if (!whole) zip.refuse(entry.name, "is damaged: it does not inflate to the size it declares");
  return out;
}

}  // namespace

std::vector<std::byte> ZipInput::bytes(uint64_t begin, uint64_t count) const {
  std::vector<std::byte> out(count);
  file.read(begin, count, out.data());
  return out;
}

void ZipInput::fail(const std::string& name, const std::string& what) const {
  const std::string record = name.empty() ? std::string() : printable(name);
  throw Error(in_file(file.path(), record), what, std::string(writer.hint));
}

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

void read_zip_extra(const ZipInput& zip, const std::string& name, Bytes extra,
                    const std::vector<uint64_t*>& wide) {
  bool seen = false;
  while (!extra.empty()) {
    if (extra.size() < 4) zip.refuse(name, "has extra fields that were cut short");
    ZipFields fields(extra);
    const uint16_t id = fields.u16(), bytes = fields.u16();
    if (extra.size() - 4 < bytes) zip.refuse(name, "has extra fields that were cut short");
    if (id == kZip64Field) {
      if (seen || wide.empty() || bytes != 8 * wide.size())
        zip.refuse(name, "has a zip64 field that does not fit its sizes");
      for (uint64_t* value : wide) *value = fields.u64();
      seen = true;
    } else if (id != kPaddingField || !zip.writer.pads) {
      zip.refuse(name, "has the extra field {:#06x}, which {} does not write", id, zip.writer.name);
    }
    extra = extra.subspan(4 + size_t{bytes});
  }
  if (!seen && !wide.empty()) zip.refuse(name, "needs a zip64 field and has none");
}

void check_zip_local(const ZipInput& zip, ZipEntry& entry, uint64_t end) {
  LocalCheck(zip, entry, end).run();
}

std::vector<std::byte> read_zip_record(const ZipInput& zip, const ZipEntry& entry) {
  std::vector<std::byte> out = zip.bytes(entry.begin, entry.stored);
  if (entry.method != 0) out = inflated(zip, entry, out);
  if (crc32(0, out) != entry.crc) zip.refuse(entry.name, "is damaged: its CRC-32 is another");
  return out;
}

}  // namespace moelora
