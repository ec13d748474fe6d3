#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moelora::test {

std::string little_endian(uint64_t value, int width);

// A zip archive as torch.save writes it, with the places of its parts for those who spoil it.
struct ZipBytes {
  std::string bytes;
  std::vector<size_t> local, central;      // where the headers of each record begin
  size_t end64 = 0, locator = 0, end = 0;  // where the end records begin

  void put(size_t at, uint64_t value, int width);
  uint64_t get(size_t at, int width) const;
};

struct ZipPart {
  std::string name, data;
};

// Stored, data 64-byte aligned by an FB field, data descriptors, zip64 records at the end.
ZipBytes zip_bytes(const std::vector<ZipPart>& parts);

// ---- pickles, opcode by opcode ----

std::string pickled(std::string_view body);  // PROTO 2, body, STOP
std::string p_text(std::string_view text);   // BINUNICODE
std::string p_int(int64_t value);            // BININT or LONG1
std::string p_global(std::string_view module, std::string_view name);
std::string p_tuple(const std::vector<std::string>& items);  // MARK .. TUPLE
std::string p_ints(std::span<const int64_t> values);
std::string p_dict(const std::vector<std::pair<std::string, std::string>>& items);
std::string p_ordered();  // OrderedDict()
std::string p_call(const std::string& callable, const std::vector<std::string>& arguments);
std::string p_storage(std::string_view type, std::string_view key, int64_t numel);

struct PickledView {
  std::string type = "FloatStorage", key = "0";
  int64_t numel = 6, offset = 0;
  std::vector<int64_t> size = {2, 3}, stride = {3, 1};
};
std::string p_tensor(const PickledView& view);  // _rebuild_tensor_v2(..)

// The parts of an archive around a data.pkl: version, byteorder, and data/KEY for each storage.
std::vector<ZipPart> torch_parts(std::string pickle, const std::vector<std::string>& storages);

// An archive with one tensor "w" [2, 3] of F32: 0, 1, .. 5.
std::vector<ZipPart> sound_parts();
std::string floats(std::span<const float> values);

}  // namespace moelora::test
