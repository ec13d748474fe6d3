#include "lib/check/base_shapes.h"

namespace moelora {
namespace {

std::optional<ModuleDims> stored_dims(const NamedTensor& tensor, const LinearSpec* linear,
                                      const BaseHeaders& headers) {
  const BaseHeaders::Weight* weight = headers.find_linear(tensor.module);
  if (linear != nullptr && weight == nullptr) weight = headers.find_linear(linear->hub);
  if (linear != nullptr && weight == nullptr) weight = headers.find_linear(linear->memory);
  if (weight == nullptr) return std::nullopt;
  const bool embedding =
      linear != nullptr ? linear->role == Role::embedding : tensor.part >= TensorPart::embedding_a;
  const int64_t rows = weight->shape[0], columns = weight->shape[1];
  return embedding ? ModuleDims{rows, columns} : ModuleDims{columns, rows};
}

}  // namespace

std::optional<ModuleDims> module_dims(const NamedTensor& tensor, const ModelSpec& spec,
                                      const BaseHeaders* headers) {
  if (tensor.expert) {
    if (!tensor.expert->projection) return std::nullopt;
    Projection projection = *tensor.expert->projection;
    if (!spec.gated && projection == Projection::gate) projection = Projection::up;
    return ModuleDims{spec.in_dim(projection), spec.out_dim(projection)};
  }
  const LinearSpec* linear =
      tensor.linear >= 0 ? &spec.linears[static_cast<size_t>(tensor.linear)] : nullptr;
  if (headers != nullptr)
    if (const auto stored = stored_dims(tensor, linear, *headers)) return stored;
  if (linear == nullptr) return std::nullopt;
  return ModuleDims{linear->in, linear->out};
}

}  // namespace moelora
