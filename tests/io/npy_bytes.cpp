#include "tests/io/npy_bytes.h"

#include <zlib.h>

#include "lib/base/crc32.h"
#include "tests/io/torch_bytes.h"

namespace moelora::test {
namespace {

std::string deflated(const std::string& data) {
  std::string out(compressBound(static_cast<uLong>(data.size())) + 64, '\0');
  z_stream stream{};
  deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

struct Packed {
  std::string bytes, crc, packed, size, method;
};

Packed pack(const NpzPart& part) {
  Packed out;
  out.bytes = (part.deflated ? deflated(part.data) : part.data) + part.behind;
  out.crc = little_endian(crc32(0, std::as_bytes(std::span(part.data))), 4);
  out.packed = little_endian(out.bytes.size(), 4);
  out.size = little_endian(part.data.size(), 4);
  out.method = little_endian(part.deflated ? 8 : 0, 2);
  return out;
}

std::string local_header(const NpzPart& part, const Packed& packed) {
  std::string out = "PK\3\4";
  out += little_endian(45, 2) + little_endian(0, 2) + packed.method + little_endian(0, 4);
  const std::string extra = part.extra.value_or(zip64_field(part.data.size(), packed.bytes.size()));
  out += packed.crc + (extra.empty() ? packed.packed + packed.size : std::string(8, '\xff'));
  out += little_endian(part.name.size(), 2) + little_endian(extra.size(), 2) + part.name;
  return out + extra;
}

std::string central_header(const NpzPart& part, const Packed& packed, size_t local) {
  std::string out = "PK\1\2";
  out += little_endian(45, 2) + little_endian(45, 2) + little_endian(0, 2) + packed.method;
  out += little_endian(0, 4) + packed.crc + packed.packed + packed.size;
  out += little_endian(part.name.size(), 2) + std::string(12, '\0') + little_endian(local, 4);
  return out + part.name;
}

}  // namespace

std::string zip64_field(uint64_t size, uint64_t stored) {
  return little_endian(1, 2) + little_endian(16, 2) + little_endian(size, 8) +
         little_endian(stored, 8);
}

std::string npy_bytes(std::string_view header, std::string_view data, int major) {
  const size_t width = major == 1 ? 2 : 4;
  std::string text(header);
  while ((8 + width + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  std::string out = "\x93NUMPY";
  out += static_cast<char>(major);
  out += '\0';
  return out + little_endian(text.size(), static_cast<int>(width)) + text + std::string(data);
}

void NpzBytes::put(size_t at, uint64_t value, int width) {
  bytes.replace(at, static_cast<size_t>(width), little_endian(value, width));
}

NpzBytes npz_bytes(const std::vector<NpzPart>& parts) {
  NpzBytes out;
  std::string directory;
  for (const NpzPart& part : parts) {
    const Packed packed = pack(part);
    out.local.push_back(out.bytes.size());
    out.central.push_back(directory.size());
    directory += central_header(part, packed, out.bytes.size());
    out.bytes += local_header(part, packed) + packed.bytes;
  }
  const size_t begin = out.bytes.size();
  for (size_t& at : out.central) at += begin;
  out.bytes += directory;
  out.end = out.bytes.size();
  out.bytes += "PK\5\6" + little_endian(0, 4) + little_endian(parts.size(), 2) +
               little_endian(parts.size(), 2) + little_endian(directory.size(), 4) +
               little_endian(begin, 4) + little_endian(0, 2);
  return out;
}

}  // namespace moelora::test
