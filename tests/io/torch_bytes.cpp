#include "tests/io/torch_bytes.h"

#include <cstring>

#include "lib/base/crc32.h"

namespace moelora::test {
namespace {

std::string repeated(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += item;
  return out;
}

uint32_t crc_of(const std::string& data) {
  return crc32(0, std::as_bytes(std::span(data.data(), data.size())));
}

}  // namespace

std::string little_endian(uint64_t value, int width) {
  std::string out;
  for (int i = 0; i < width; ++i)
    out += i < 8 ? static_cast<char>(value >> (8 * i) & 0xFF) : '\0';  // wider than a value: zeros
  return out;
}

void ZipBytes::put(size_t at, uint64_t value, int width) {
  bytes.replace(at, static_cast<size_t>(width), little_endian(value, width));
}

uint64_t ZipBytes::get(size_t at, int width) const {
  uint64_t out = 0;
  for (size_t i = static_cast<size_t>(width); i-- > 0;)
    out = out << 8 | static_cast<uint8_t>(bytes[at + i]);
  return out;
}

ZipBytes zip_bytes(const std::vector<ZipPart>& parts) {
  ZipBytes out;
  std::string directory;
  const auto le = little_endian;
  std::vector<size_t> in_directory;
  for (const auto& [name, data] : parts) {
    const bool empty = data.empty();
    const std::string kind = le(empty ? 0x0800 : 0x0808, 2) + le(0, 2) + le(0, 4);  // flags ..
    out.local.push_back(out.bytes.size());
    in_directory.push_back(directory.size());
    directory += "PK\1\2" + le(0, 4) + kind + le(crc_of(data), 4) + le(data.size(), 4) +
                 le(data.size(), 4) + le(name.size(), 2) + le(0, 2) + le(0, 10) +
                 le(out.bytes.size(), 4) + name;
    const size_t unpadded = out.bytes.size() + 30 + name.size() + 4;
    const size_t padding = (64 - unpadded % 64) % 64;
    out.bytes += "PK\3\4" + le(0, 2) + kind + le(0, 12) + le(name.size(), 2) + le(padding + 4, 2) +
                 name + "FB" + le(padding, 2) + std::string(padding, 'Z') + data;
    if (!empty)
      out.bytes += "PK\7\10" + le(crc_of(data), 4) + le(data.size(), 4) + le(data.size(), 4);
  }
  for (const size_t at : in_directory) out.central.push_back(out.bytes.size() + at);
  const size_t begin = out.bytes.size(), count = parts.size();
  out.bytes += directory;
  out.end64 = out.bytes.size();
  out.bytes += "PK\6\6" + le(44, 8) + le(0x2D031E, 4) + le(0, 8) + le(count, 8) + le(count, 8) +
               le(directory.size(), 8) + le(begin, 8);
  out.locator = out.bytes.size();
  out.bytes += "PK\6\7" + le(0, 4) + le(out.end64, 8) + le(1, 4);
  out.end = out.bytes.size();
  out.bytes += "PK\5\6" + le(0, 4) + le(count, 2) + le(count, 2) + le(directory.size(), 4) +
               le(begin, 4) + le(0, 2);
  return out;
}

std::string pickled(std::string_view body) { return "\x80\2" + std::string(body) + "."; }

std::string p_text(std::string_view text) {
  return "X" + little_endian(text.size(), 4) + std::string(text);
}

std::string p_int(int64_t value) {
  const auto bits = static_cast<uint64_t>(value);
  if (value == static_cast<int32_t>(value)) return "J" + little_endian(bits, 4);
  return "\x8A\x08" + little_endian(bits, 8);
}

std::string p_global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}

std::string p_tuple(const std::vector<std::string>& items) { return "(" + repeated(items) + "t"; }

std::string p_ints(std::span<const int64_t> values) {
  std::vector<std::string> items;
  for (const int64_t value : values) items.push_back(p_int(value));
  return p_tuple(items);
}

std::string p_dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string out = "}(";
  for (const auto& [key, value] : items) out += p_text(key) + value;
  return out + "u";
}

std::string p_ordered() { return p_call(p_global("collections", "OrderedDict"), {}); }

std::string p_call(const std::string& callable, const std::vector<std::string>& arguments) {
  return callable + p_tuple(arguments) + "R";
}

std::string p_storage(std::string_view type, std::string_view key, int64_t numel) {
  const bool untyped = type == "UntypedStorage";
  return p_tuple({p_text("storage"), p_global(untyped ? "torch.storage" : "torch", type),
                  p_text(key), p_text("cpu"), p_int(numel)}) +
         "Q";
}

std::string p_tensor(const PickledView& view) {
  return p_call(p_global("torch._utils", "_rebuild_tensor_v2"),
                {p_storage(view.type, view.key, view.numel), p_int(view.offset), p_ints(view.size),
                 p_ints(view.stride), "\x89", p_ordered()});
}

std::vector<ZipPart> torch_parts(std::string pickle, const std::vector<std::string>& storages) {
  std::vector<ZipPart> out = {{"m/data.pkl", std::move(pickle)},
                              {"m/.format_version", "1"},
                              {"m/.storage_alignment", "64"},
                              {"m/byteorder", "little"}};
  for (size_t i = 0; i < storages.size(); ++i)
    out.push_back({"m/data/" + std::to_string(i), storages[i]});
  out.push_back({"m/version", "3\n"});
  out.push_back({"m/.data/serialization_id", "0760530726789829938110266955622142948670"});
  return out;
}

std::string floats(std::span<const float> values) {
  std::string out(values.size_bytes(), '\0');
  std::memcpy(out.data(), values.data(), out.size());
  return out;
}

std::vector<ZipPart> sound_parts() {
  const float values[] = {0, 1, 2, 3, 4, 5};
  return torch_parts(pickled(p_dict({{"w", p_tensor({})}})), {floats(values)});
}

}  // namespace moelora::test
