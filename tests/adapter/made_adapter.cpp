#include "tests/adapter/made_adapter.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "lib/model/base_model.h"
#include "tests/io/safetensors_bytes.h"
#include "tests/model/loader_bases.h"

namespace moelora::test {

MadeAdapter& MadeAdapter::add(const std::string& name, const Shape& shape) {
  const auto elements =
      std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  std::vector<float> values(static_cast<size_t>(elements));
  std::iota(values.begin(), values.end(), next_);
  next_ += static_cast<float>(elements);
  tensors_[name] = Tensor::of_f32(shape, values);
  return *this;
}

MadeAdapter& MadeAdapter::pair(const std::string& module, const Shape& a, const Shape& b) {
  return add(a_name(module), a).add(b_name(module), b);
}

MadeAdapter& MadeAdapter::copy(const std::string& name, const std::string& from) {
  const Tensor& original = tensors_.at(from);
  tensors_[name] = Tensor::of_f32(original.shape(), floats(original));
  return *this;
}

MadeAdapter& MadeAdapter::remove(const std::string& name) {
  tensors_.erase(name);
  return *this;
}

LoadedAdapter MadeAdapter::read(const std::string& family, const ReadOptions& options,
                                const std::string& from) const {
  AdapterFiles files;
  files.config =
      parse_adapter_config(parse_json(config_, "adapter_config.json"), "adapter_config.json");
  files.tensors = tensors_;
  std::optional<BaseModel> base;
  if (!family.empty()) base = catalogue_base(family);
  return interpret_adapter(std::move(files), std::move(base), from, options);
}

Conversion MadeAdapter::convert(const std::string& to, const std::string& family,
                                const LayoutWriteOptions& write, const ReadOptions& options) const {
  PlanOptions convert;
  convert.to = to;
  convert.layout = write;
  return plan_conversion(read(family, options), convert);
}

void MadeAdapter::write(const std::string& folder) const {
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/adapter_config.json") << config_;
  std::ofstream(folder + "/adapter_model.safetensors", std::ios::binary)
      << safetensors_bytes(tensors_);
}

BaseModel catalogue_base(const std::string& family) {
  if (is_loader_base(family)) return loader_model(family);
  const std::string first = MOELORA_TEST_DATA "/catalogue/" + family;
  return open_base(std::filesystem::exists(first) ? first
                                                  : MOELORA_TEST_DATA "/families/" + family);
}

std::vector<float> floats(const Tensor& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.elements()));
  const std::vector<std::byte> bytes = tensor.read();
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

std::string a_name(const std::string& module) {
  return "base_model.model." + module + ".lora_A.weight";
}

std::string b_name(const std::string& module) {
  return "base_model.model." + module + ".lora_B.weight";
}

}  // namespace moelora::test
