// The writes of a load, filled with values, are bit for bit what the real server held in its pool.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "lib/base/cast.h"
#include "lib/io/safetensors.h"
#include "tests/engine/crc32.h"
#include "tests/engine/served_from_folder.h"
#include "tests/engine/sglang_compare.h"

using namespace moelora;
using namespace moelora::test;
using sglang::CpuAdapter;
using sglang::Server;

using sglang::Write;

namespace {

using Bf16 = std::vector<uint16_t>;

template <class T>
std::vector<T> cast_values(DType from, DType to, const std::vector<std::byte>& bytes) {
  std::vector<T> out(bytes.size() / static_cast<size_t>(dtype_bytes(from)));
  cast_elements(from, to, static_cast<int64_t>(out.size()), bytes.data(),
                reinterpret_cast<std::byte*>(out.data()));
  return out;
}

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

// On the GPU a cast has one NaN for all.
Bf16 to_bf16(DType from, const std::vector<std::byte>& bytes) {
  Bf16 out = cast_values<uint16_t>(from, DType::BF16, bytes);
  for (uint16_t& value : out)
    if ((value & 0x7F80) == 0x7F80 && (value & 0x7F) != 0) value = 0x7FFF;
  return out;
}

// lora_B of experts: multiplied in the file's type (by the scale in F32), then cast.
Bf16 scaled_bf16(DType dtype, const std::vector<std::byte>& bytes, double scale) {
  std::vector<float> values = cast_values<float>(dtype, DType::F32, bytes);
  for (float& value : values) value *= static_cast<float>(scale);
  if (dtype != DType::F16) return to_bf16(DType::F32, bytes_of(values));
  const auto halves = cast_values<uint16_t>(DType::F32, DType::F16, bytes_of(values));
  return to_bf16(DType::F16, bytes_of(halves));
}

// The values of an adapter's sources as the server copies them, read when asked for.
class Values {
 public:
  Values(const CpuAdapter& adapter, const std::string& folder) : adapter_(adapter) {
    for (const std::string& file : adapter.files) {
      const bool pickle = file.ends_with(".bin");
      const std::string stem = pickle ? folder.substr(0, folder.rfind("_bin")) : folder;
      files_.push_back(
          open_safetensors(stem + "/" + (pickle ? "adapter_model.safetensors" : file)));
    }
  }

  const Bf16& of(int32_t id, bool scaled) {
    Bf16& out = made_[{id, scaled}];
    if (!out.empty()) return out;
    const sglang::Source& source = adapter_.sources[static_cast<size_t>(id)];
    const auto bytes = files_[source.file].tensors.at(source.name).read();
    out =
        scaled ? scaled_bf16(source.dtype, bytes, adapter_.scale()) : to_bf16(source.dtype, bytes);
    return out;
  }

  const Shape& shape(int32_t id) const { return adapter_.sources[static_cast<size_t>(id)].shape; }

 private:
  const CpuAdapter& adapter_;
  std::vector<SafetensorsFile> files_;
  std::map<std::pair<int32_t, bool>, Bf16> made_;
};

// The buffers of one rank, filled write by write.
class PoolOfValues : public sglang::WriteSink {
 public:
  PoolOfValues(const Server& server, size_t rank, Values& values) : values_(values) {
    const sglang::Pool& pool = server.pools()[rank];
    for (size_t layer = 0; layer < server.wrapping().layers.size(); ++layer)
      for (const auto& wrapped : server.wrapping().layers[layer]) {
        const sglang::Buffer& buffer = *pool.find(wrapped.buffer);
        add(buffer.name, static_cast<int>(layer), buffer.a[layer], buffer.b[layer]);
      }
    for (const auto& buffer : pool.embeddings) add(buffer.name, -1, buffer.a, buffer.b);
  }

  void write(const Write& write) override {
    Buffer& buffer =
        buffers_.at({std::string(write.buffer) + (write.is_a ? ".A" : ".B"), write.layer});
    const Bf16& from = values_.of(write.source, write.scaled);
    const Shape& shape = values_.shape(write.source);
    const int64_t width = shape.back(), height = shape[shape.size() - 2];
    const int64_t base = std::max<int64_t>(write.source_expert, 0) * height * width;
    for (int64_t i = 0; i < write.rows; ++i) {
      const int64_t row =
          write.row + i * write.row_step + std::max<int64_t>(write.expert, 0) * buffer.height;
      const int64_t to = row * buffer.width + write.column;
      const int64_t at = base + (write.source_row + i) * width + write.source_column;
      std::copy_n(from.begin() + at, write.columns, buffer.values.begin() + to);
    }
  }

  // Of each buffer, layer after layer.
  std::map<std::string, uint32_t> digests() const {
    std::map<std::string, uint32_t> out;
    for (const auto& [key, buffer] : buffers_)
      out[key.first] = crc32(std::as_bytes(std::span(buffer.values)), out[key.first]);
    return out;
  }

 private:
  struct Buffer {
    int64_t height = 0, width = 0;  // of one expert
    Bf16 values;
  };

  void add(const std::string& name, int layer, const Shape& a, const Shape& b) {
    for (const auto& [side, shape] : {std::pair<const char*, const Shape&>{".A", a}, {".B", b}}) {
      Buffer& buffer = buffers_[{name + side, layer}];
      buffer.height = shape[shape.size() - 2];
      buffer.width = shape.back();
      buffer.values.assign(
          static_cast<size_t>(buffer.height * buffer.width * (shape.size() == 3 ? shape[0] : 1)),
          0);
    }
  }

  Values& values_;
  std::map<std::pair<std::string, int>, Buffer> buffers_;
};

size_t rank_of(const std::string& setting) { return setting.ends_with(".1") ? 1 : 0; }

sglang::Launch launch_of(const std::string& setting) {
  sglang::Launch out;
  if (setting == "R8") out.max_lora_rank = 8;
  if (setting.starts_with("tp2")) out.tp = 2;
  if (setting.starts_with("tp2ep2")) out.ep = 2;
  return out;
}

}  // namespace

TEST_CASE("the writes of a load, filled with values, are bit for bit SGLang's pool") {
  size_t pools = 0, buffers = 0;
  for (const OracleRecord& record : sglang_records()) {
    const Json* digests = record.json.find("pool");
    if (digests == nullptr) continue;
    const std::string adapter = record.text("adapter"), setting = record.text("setting");
    const std::string folder = sglang_folder(record.family, adapter);
    const OracleBase& base = sglang_base(record.family, adapter.ends_with("_q40") ? "q40" : "");
    Server server(sglang::make_model_class(base.spec, base.config), {}, launch_of(setting));
    const ServedAdapter served = served_from_folder(folder);
    REQUIRE(server.start({&served, 1}));
    server.use(0);
    Values values(server.adapter(0), folder);
    PoolOfValues pool(server, rank_of(setting), values);
    server.writes(0, rank_of(setting), pool);
    ++pools;
    const auto ours = pool.digests();
    CAPTURE(record.label());
    for (const auto& [name, crc] : digests->members()) {
      CAPTURE(name);
      REQUIRE(ours.count(name) == 1);
      CHECK(ours.at(name) == crc.as_int());
      ++buffers;
    }
  }
  CHECK(pools == 1686);
  CHECK(buffers > 5000);
}
