#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moelora::test {

// Numbers as their bytes.
template <class T>
std::string raw(std::initializer_list<T> values) {
  std::string out;
  for (const T& value : values) out.append(reinterpret_cast<const char*>(&value), sizeof value);
  return out;
}

std::string zip64_field(uint64_t size, uint64_t stored);

// A .npy file with this header, padded as numpy does it. Version 1.0, 2.0 or 3.0.
std::string npy_bytes(std::string_view header, std::string_view data, int major = 1);

struct NpzPart {
  std::string name;  // with ".npy"
  std::string data;
  bool deflated = false;
  std::string behind = {};                // bytes of the record after the deflated stream
  std::optional<std::string> extra = {};  // of the local header, in place of numpy's zip64 field
};

// An archive as numpy.savez writes it (local headers with a zip64 field), with the places of its
// parts for those who spoil it.
struct NpzBytes {
  std::string bytes;
  std::vector<size_t> local, central;
  size_t end = 0;

  void put(size_t at, uint64_t value, int width);
};
NpzBytes npz_bytes(const std::vector<NpzPart>& parts);

}  // namespace moelora::test
