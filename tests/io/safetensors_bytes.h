#pragma once

#include <cstdint>
#include <string>

namespace moelora {

// A safetensors file as bytes: length, header as given, then `data`. Nothing is checked.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return out + header + data;
}

// One U8 tensor of shape [size] that fills the file.
inline std::string one_tensor_bytes(const std::string& name, const std::string& data) {
  const std::string n = std::to_string(data.size());
  return safetensors_bytes(
      "{\"" + name + "\":{\"dtype\":\"U8\",\"shape\":[" + n + "],\"data_offsets\":[0," + n + "]}}",
      data);
}

}  // namespace moelora
