#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"

namespace moelora {

// A weight matrix or a bias of one expert, row-major.
struct ExpertMatrix {
  DType dtype = DType::BF16;
  std::vector<std::byte> bytes;
};

struct WhichExpert {
  int layer;
  int64_t expert;
  Projection projection;  // gate, up or down
};

// Picks single experts out of a checkpoint by plain index arithmetic, whichever storage it has:
// slow, simple, and sharing nothing with the lazy views of expert_tensors.h, whose results are
// compared with it. Refers to its arguments.
class PlainExperts {
 public:
  PlainExperts(const TensorMap& tensors, const ModelSpec& spec) : tensors_(tensors), spec_(spec) {}

  bool has_layer(int layer) const;

  // [out, in]; [out]. nullopt when the checkpoint has no such tensor.
  std::optional<ExpertMatrix> weight(const WhichExpert& which) const;
  std::optional<ExpertMatrix> bias(const WhichExpert& which) const;

 private:
  std::vector<ExpertStorage> storages() const;
  std::optional<ExpertMatrix> whole(const std::string& name) const;
  std::optional<ExpertMatrix> batched(const ExpertStorage& storage, const WhichExpert& which) const;
  std::vector<std::byte> decoded(const std::string& name, int64_t expert) const;
  ExpertMatrix pick(DType dtype, const std::vector<std::byte>& from, const WhichExpert& which,
                    bool fused, int64_t columns, bool in_out) const;

  const TensorMap& tensors_;
  const ModelSpec& spec_;
};

// Compares a converted checkpoint, read back from disk, with the one it was made from, by a second
// way of evaluating that shares nothing with the conversion: every expert's gate, up and down
// matrix (and bias) is picked out of either by plain index arithmetic and the one-value-at-a-time
// MXFP4 decoder; every other tensor is compared byte by byte, after the cast where its dtype
// differs. Returns how many matrices, biases and tensors were compared.
// Throws Error at "`where`: TENSOR" for the first that differs, or that only one of them has.
// Tensors of `in` that `out` left out with a whole layer (--layers) are no difference.
int64_t verify_base(const TensorMap& in, const TensorMap& out, const ModelSpec& spec, int threads,
                    const std::string& where);

}  // namespace moelora
