// The placements of a load, filled with values, are bit for bit the buffers that vLLM held.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

#include "lib/base/cast.h"
#include "lib/engine/vllm/load.h"
#include "lib/io/safetensors.h"
#include "tests/engine/crc32.h"
#include "tests/engine/vllm_oracle.h"

using namespace moelora;
using namespace moelora::test;
using vllm::Placement;
using vllm::View;

namespace {

using Bf16 = std::vector<uint16_t>;

// bf16(float(value) * float(scale)): what `lora_b *= scaling` computes.
uint16_t scaled(uint16_t value, double scale) {
  if (scale == 1) return value;
  const float product =
      std::bit_cast<float>(static_cast<uint32_t>(value) << 16) * static_cast<float>(scale);
  uint16_t out = 0;
  cast_elements(DType::F32, DType::BF16, 1, reinterpret_cast<const std::byte*>(&product),
                reinterpret_cast<std::byte*>(&out));
  return out;
}

// The tensors of a file as the server holds them after its cast.
class Values {
 public:
  explicit Values(const std::string& path)
      : file_(open_safetensors(path)), tensors_(cast_tensors(file_.tensors, DType::BF16)) {}

  const Bf16& of(const std::string& name) {
    const auto [at, fresh] = values_.try_emplace(name);
    if (fresh) {
      const std::vector<std::byte> bytes = tensors_.at(name).read();
      at->second.resize(bytes.size() / 2);
      std::memcpy(at->second.data(), bytes.data(), bytes.size());
    }
    return at->second;
  }

 private:
  SafetensorsFile file_;
  TensorMap tensors_;
  std::map<std::string, Bf16> values_;
};

int64_t elements(const Shape& shape) {
  int64_t out = 1;
  for (int64_t extent : shape) out *= extent;
  return out;
}

// The slow, plain reading of a Placement, one element after the other.
void fill(const Placement& placement, const WeightFile& file, Values& values, const Shape& shape,
          Bf16& buffer) {
  const View& view = placement.view;
  const size_t rank = shape.size();
  Shape at(rank);
  for (int64_t n = 0; n < elements(placement.count); ++n) {
    for (int64_t d = static_cast<int64_t>(rank) - 1, rest = n; d >= 0; --d) {
      const auto u = static_cast<size_t>(d);
      at[u] = rest % placement.count[u];
      rest /= placement.count[u];
    }
    int64_t to = 0, from = view.offset;
    uint32_t source = view.sources[0];
    for (size_t d = 0; d < rank; ++d) {
      to = to * shape[d] + placement.start[d] + at[d];
      const int64_t index = view.shape[d] == 1 ? 0 : at[d];
      if (d == 0 && view.stacked)
        source = view.sources[static_cast<size_t>(index)];
      else
        from += index * view.strides[d];
    }
    buffer[static_cast<size_t>(to)] =
        scaled(values.of(file.tensors[source].name)[static_cast<size_t>(from)], view.scale);
  }
}

uint32_t buffers_crc(const vllm::RankLoad& load, const WeightFile& file, Values& values) {
  std::map<std::string, Bf16> by_name;
  for (const vllm::Buffer& buffer : load.buffers)
    by_name[buffer.name].resize(static_cast<size_t>(elements(buffer.shape)));
  for (const Placement& placement : load.placements) {
    const vllm::Buffer& buffer = load.buffers[placement.buffer];
    fill(placement, file, values, buffer.shape, by_name[buffer.name]);
  }
  uint32_t crc = 0;
  for (const auto& [name, buffer] : by_name) {
    if (std::all_of(buffer.begin(), buffer.end(), [](uint16_t v) { return v == 0; })) continue;
    const std::string line = name + "\n";
    crc = crc32(std::as_bytes(std::span<const char>(line)), crc);
    crc = crc32(std::as_bytes(std::span(buffer)), crc);
  }
  return crc;
}

}  // namespace

TEST_CASE("the placements of a load, filled with values, are bit for bit vLLM's buffers") {
  size_t compared = 0;
  std::map<std::string, Values> files;
  for (const VllmRun& run : vllm_oracle().runs) {
    if (!run.buffers) continue;
    const VllmBase& base = vllm_base(run.family);
    vllm::Settings settings =
        vllm::make_settings(run.options(), base.spec, *EngineVersion::parse(run.version));
    settings.force_stacked = run.mode == "as3d";
    const vllm::Server server = vllm::make_server(base.spec, base.config, std::move(settings));
    const ServedAdapter served = vllm_adapter(run.folder());
    const vllm::Adapter adapter = vllm::open_adapter(server, served);
    const vllm::RankLoad load = vllm::load_on_rank(server, adapter, run.rank);
    const std::string path = vllm_weights_path(run.folder());
    Values& values = files.try_emplace(path, path).first->second;
    INFO(run.text());
    CHECK(buffers_crc(load, *adapter.file, values) == *run.buffers);
    ++compared;
  }
  CHECK(compared > 1000);
}
