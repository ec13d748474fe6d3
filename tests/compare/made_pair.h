#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/adapter/convert.h"
#include "lib/compare/packed_check.h"
#include "lib/model/base_model.h"

namespace moelora::test {

// A base model of a family with dims of a test's choice.
struct Dims {
  int64_t layers = 3, experts = 12, hidden = 20, intermediate = 12;
};
BaseModel made_base(const std::string& family, const Dims& dims = {});

// An adapter in memory.
struct Held {
  TensorMap tensors;
  Json config;
};

// The experts of every layer as numbered pairs, gate and up with an A of their own, random values
// (F32) that are all different; alpha 12, so that a rank of 3 gives the scale 4.
struct MadeOptions {
  int64_t rank = 3;
  double alpha = 12;
  bool same_a = false;        // gate and up share their A
  bool shared_outer = false;  // all experts share gate's and up's A and down's B
  bool attention = false;
  DType dtype = DType::F32;
  uint64_t seed = 1;
};
Held made_experts(const ModelSpec& spec, const MadeOptions& options = {});

// `source` in another layout, by lib/adapter.
Held converted(const Held& source, const BaseModel& base, const std::string& to,
               const LayoutWriteOptions& form = {}, std::optional<DType> dtype = {});

packed::Report checked(const Held& packed, const Held& source, const ModelSpec* spec,
                       bool products = true, const packed::Reading& reading = {});

// Names of the faults, the first to concern most pairs.
std::vector<std::string> fault_names(const packed::Report& report);

// Edits of tensors whose names hold all of `parts`; F32 only. Returns how many there were.
using Values = std::vector<float>;
int edit(Held& held, const std::vector<std::string>& parts,
         const std::function<void(Values& values, const Shape& shape)>& change);
Values values_of(const Tensor& tensor);
Tensor bf16_tensor(const Shape& shape, const std::vector<uint16_t>& bits);

}  // namespace moelora::test
