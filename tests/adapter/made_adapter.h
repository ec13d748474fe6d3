#pragma once

#include <string>
#include <vector>

#include "lib/adapter/convert.h"
#include "lib/model/base_model.h"

namespace moelora::test {

// An adapter made up by a test. It lives in memory; every element of all its tensors together is a
// number of its own, so that whatever lands in a wrong place shows.
class MadeAdapter {
 public:
  explicit MadeAdapter(std::string config = R"({"r": 2, "lora_alpha": 4})")
      : config_(std::move(config)) {}

  MadeAdapter& add(const std::string& name, const Shape& shape);
  // base_model.model.MODULE.lora_{A,B}.weight.
  MadeAdapter& pair(const std::string& module, const Shape& a, const Shape& b);
  // As add, with the bytes of a tensor that is there already.
  MadeAdapter& copy(const std::string& name, const std::string& from);
  MadeAdapter& remove(const std::string& name);

  const std::string& config() const { return config_; }
  const TensorMap& tensors() const { return tensors_; }
  void set(const std::string& name, Tensor tensor) { tensors_.at(name) = std::move(tensor); }

  // `family`: of the catalogue, families (tests/data) or loader_bases.h; "" for no base model.
  LoadedAdapter read(const std::string& family = "", const ReadOptions& options = {},
                     const std::string& from = "") const;
  Conversion convert(const std::string& to, const std::string& family = "",
                     const LayoutWriteOptions& write = {}, const ReadOptions& options = {}) const;

  // adapter_config.json and adapter_model.safetensors in `folder`, which is made.
  void write(const std::string& folder) const;

 private:
  std::string config_;
  TensorMap tensors_;
  float next_ = 1;
};

BaseModel catalogue_base(const std::string& family);

std::vector<float> floats(const Tensor& tensor);

// "base_model.model." + module + ".lora_A.weight".
std::string a_name(const std::string& module);
std::string b_name(const std::string& module);

}  // namespace moelora::test
