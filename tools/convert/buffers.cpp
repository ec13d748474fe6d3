#include "tools/convert/buffers.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

constexpr const char* kTool = "lora-convert";

// A buffer's name without the layer's number, and that.
std::pair<std::string, int> split_layer(const std::string& name) {
  const std::string key = "layers.";
  const size_t at = name.find(key);
  if (at == std::string::npos) return {name, -1};
  const size_t begin = at + key.size(), end = name.find('.', begin);
  if (end == std::string::npos) return {name, -1};
  int layer = 0;
  for (size_t i = begin; i < end; ++i) layer = 10 * layer + (name[i] - '0');
  return {name.substr(0, at) + name.substr(end + 1), layer};
}

// One line for what several layers hold alike.
std::string buffer_table(const TensorMap& buffers) {
  std::map<std::pair<std::string, std::string>, std::vector<int>> layers;
  for (const auto& [name, tensor] : buffers) {
    const auto [stem, layer] = split_layer(name);
    std::vector<int>& of = layers[{stem, to_string(tensor.shape())}];
    if (layer >= 0) of.push_back(layer);
  }
  std::vector<std::vector<std::string>> rows{{"buffer", "layers", "shape"}};
  for (auto& [key, of] : layers) {
    std::sort(of.begin(), of.end());
    rows.push_back({printable(key.first), of.empty() ? "-" : ranges(of), key.second});
  }
  return text_table(rows);
}

uint64_t bytes_of(const TensorMap& tensors) {
  uint64_t bytes = 0;
  for (const auto& entry : tensors) bytes += entry.second.bytes();
  return bytes;
}

}  // namespace

int BuffersCommand::run() const {
  const BufferConversion c = plan_buffers(in, options);
  for (const std::string& note : c.notes) print_note(common, kTool, note);
  std::string text = buffer_table(c.buffers);
  const auto size = [&](const char* verb) {
    return fmt::format("{} {}: rank {} of {}, {} buffers, {}\n", verb, out, c.tp_rank,
                       c.engine.label(), c.buffers.size(), size_text(bytes_of(c.buffers)));
  };
  if (dry_run) {
    print_data(common, text + size("would write"));
    return kClean;
  }
  const WrittenConversion written = write_buffers(c, out, folder);
  text += size("wrote");
  if (folder.verify) text += fmt::format("verified: {} buffers as computed\n", written.verified);
  print_data(common, text);
  return kClean;
}

}  // namespace moelora
