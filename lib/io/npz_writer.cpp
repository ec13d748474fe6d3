#include "lib/io/npz_writer.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "lib/base/crc32.h"
#include "lib/base/error.h"
#include "lib/io/npy.h"

namespace moelora {
namespace {

constexpr uint32_t kLocalMark = 0x04034B50, kCentralMark = 0x02014B50, kEndMark = 0x06054B50;
constexpr uint16_t kVersion = 45;        // with zip64, which numpy always asks for
constexpr uint16_t kUnix = 3 << 8;       // who wrote the attributes
constexpr uint32_t kMode = 0600u << 16;  // as Python's zipfile has it
constexpr uint16_t kDate = 1 << 5 | 1;   // 1980-01-01, the first of zip
constexpr uint32_t kInZip64 = 0xFFFFFFFF;

constexpr std::array<std::pair<DType, std::string_view>, 4> kDescrs = {
    {{DType::F64, "<f8"}, {DType::F32, "<f4"}, {DType::I64, "<i8"}, {DType::BOOL, "|b1"}}};

template <class T>
void put(T value, std::string& out) {
  for (size_t i = 0; i < sizeof(T); ++i)
    out += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
}

std::string_view descr_of(const std::string& name, DType dtype) {
  for (const auto& [known, descr] : kDescrs)
    if (known == dtype) return descr;
  throw Error(name, fmt::format("is {}, which no .npz is written of", dtype_name(dtype)));
}

// Magic, version 1.0, the length of the dict, the dict; all of it a multiple of 64 bytes.
std::string npy_header(const std::string& name, const Tensor& array) {
  std::string shape;
  for (const int64_t extent : array.shape()) shape += fmt::format("{}, ", extent);
  if (array.rank() != 1 && !shape.empty()) shape.resize(shape.size() - 2);
  if (array.rank() == 1) shape.pop_back();
  std::string dict = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
                                 descr_of(name, array.dtype()), shape);
  dict.resize((10 + dict.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  dict += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  put(static_cast<uint16_t>(dict.size()), out);
  return out + dict;
}

struct Record {
  std::string name, data;
  uint32_t crc = 0;
  uint64_t begin = 0;  // of its local header
};

Record record_of(const std::string& name, const Tensor& array) {
  Record out{name + ".npy", npy_header(name, array)};
  const size_t header = out.data.size();
  out.data.resize(header + array.bytes());
  if (array.bytes() > 0) array.read(reinterpret_cast<std::byte*>(out.data.data()) + header);
  out.crc = crc32(0, std::as_bytes(std::span(out.data)));
  return out;
}

// What a local header and a directory entry both have, up to the length of the name.
void put_common(const Record& record, uint32_t size, std::string& out) {
  put(kVersion, out);
  put(uint16_t{0}, out);  // flags
  put(uint16_t{0}, out);  // stored
  put(uint16_t{0}, out);  // midnight
  put(kDate, out);
  put(record.crc, out);
  put(size, out);
  put(size, out);
  put(static_cast<uint16_t>(record.name.size()), out);
}

void put_record(Record& record, std::string& out) {
  record.begin = out.size();
  put(kLocalMark, out);
  put_common(record, kInZip64, out);
  put(uint16_t{20}, out);  // of the extra field
  out += record.name;
  put(uint16_t{1}, out);
  put(uint16_t{16}, out);
  put(uint64_t{record.data.size()}, out);
  put(uint64_t{record.data.size()}, out);
  out += record.data;
}

void put_entry(const Record& record, std::string& out) {
  put(kCentralMark, out);
  put(static_cast<uint16_t>(kUnix | kVersion), out);
  put_common(record, static_cast<uint32_t>(record.data.size()), out);
  put(uint16_t{0}, out);  // extra field
  put(uint16_t{0}, out);  // comment
  put(uint16_t{0}, out);  // disk
  put(uint16_t{0}, out);  // internal attributes
  put(kMode, out);
  put(static_cast<uint32_t>(record.begin), out);
  out += record.name;
}

void put_end(uint64_t entries, uint64_t begin, std::string& out) {
  const uint64_t bytes = out.size() - begin;
  put(kEndMark, out);
  put(uint32_t{0}, out);  // disks
  put(static_cast<uint16_t>(entries), out);
  put(static_cast<uint16_t>(entries), out);
  put(static_cast<uint32_t>(bytes), out);
  put(static_cast<uint32_t>(begin), out);
  put(uint16_t{0}, out);  // comment
}

}  // namespace

std::string npz_bytes(const TensorMap& arrays) {
  uint64_t size = 0;
  for (const auto& [name, array] : arrays) size += array.bytes();
  if (size > kMaxNpzBytes)
    throw Error("arrays",
                fmt::format("have {} bytes, a .npz of at most {} is read", size, kMaxNpzBytes),
                "write .safetensors");
  std::string out;
  std::vector<Record> records;
  for (const auto& [name, array] : arrays) {
    Record& record = records.emplace_back(record_of(name, array));
    put_record(record, out);
  }
  const uint64_t begin = out.size();
  for (const Record& record : records) put_entry(record, out);
  put_end(records.size(), begin, out);
  return out;
}

}  // namespace moelora
