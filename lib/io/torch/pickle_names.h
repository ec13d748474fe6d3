#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "lib/base/dtype.h"

namespace moelora {

// What a GLOBAL of a file of plain tensors may name.
struct PickleGlobal {
  enum class Role : uint8_t {
    ordered_dict,     // collections.OrderedDict
    tensor_v2,        // (storage, offset, size, stride, requires_grad, hooks[, metadata])
    tensor_v3,        // the same with dtype after hooks
    parameter,        // (tensor, requires_grad, hooks)
    storage,          // a storage type of one dtype
    untyped_storage,  // bytes, whose dtype tensor_v3 says
    dtype,
    size,  // torch.Size
    device,
  };

  std::string_view module, name;
  Role role;
  DType dtype = DType::U8;  // of a storage or dtype
};

// The place of MODULE.NAME in the allow-list; nullopt when it is not on it.
std::optional<size_t> find_pickle_global(std::string_view module, std::string_view name);
const PickleGlobal& pickle_global(size_t index);

// What a file holds that names this global of torch, which is known but not read ("a sparse
// tensor"); "" for any other.
std::string_view unread_torch_kind(std::string_view module, std::string_view name);

}  // namespace moelora
