#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/dtype.h"

namespace moelora {

// An object of a pickle: a number, or the place of a node in its Pickle. Copying one shares the
// node, as Python's memo does.
struct PickleValue {
  enum class Kind : uint8_t {
    none,
    boolean,  // number: 0 or 1
    integer,  // number
    real,     // number: the bits of a double
    text,     // index into texts
    tuple,    // index into tuples
    list,     // index into lists
    dict,     // index into dicts
    global,   // index into the allow-list (pickle_global)
    storage,  // index into storages
    tensor,   // index into tensors
    device,   // where a tensor once lived: no node
  };

  Kind kind = Kind::none;
  int64_t number = 0;

  size_t index() const { return static_cast<size_t>(number); }
  double real() const;
};

struct PickleContainer {
  int depth = 1;
  bool closed = false;  // part of another one: it changes no more
};

// A run of `cells`.
struct PickleTuple : PickleContainer {
  size_t begin = 0, count = 0;
};

struct PickleList : PickleContainer {
  std::vector<PickleValue> items;
};

// Keys are texts or integers and differ.
struct PickleDict : PickleContainer {
  bool ordered = false;  // collections.OrderedDict
  std::vector<std::pair<PickleValue, PickleValue>> items;
};

// The bytes of the record data/KEY: `elements` of one type, or (untyped) so many bytes.
struct PickledStorage {
  std::string_view key;
  DType dtype = DType::U8;
  bool untyped = false;
  int64_t elements = 0;
};

// A strided view of a storage, in elements of `dtype`; it lies within the storage.
struct PickledTensor {
  size_t storage = 0;
  DType dtype = DType::U8;
  int64_t offset = 0;
  std::vector<int64_t> shape, stride;
};

// What a pickle says, as a graph without cycles. One node may be reached over many paths (2^60 in a
// hostile file): walk it with a budget. Texts are views of the pickle's bytes.
struct Pickle {
  PickleValue root;
  std::vector<std::string_view> texts;
  std::vector<PickleValue> cells;
  std::vector<PickleTuple> tuples;
  std::vector<PickleList> lists;
  std::vector<PickleDict> dicts;
  std::vector<PickledStorage> storages;  // each key once
  std::vector<PickledTensor> tensors;
};

inline constexpr int kMaxPickleDepth = 64;   // of containers in containers
inline constexpr size_t kMaxPickleRank = 8;  // dims of a tensor
inline constexpr size_t kMaxPickleText = 65536;

// ---- the names a pickle may use ----

// What a GLOBAL of a file of plain tensors may name.
struct PickleGlobal {
  enum class Role : uint8_t {
    ordered_dict,     // collections.OrderedDict
    set,              // of a list, which stands for it: DeepSpeed's sparse_tensor_module_names
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

// "a dict", "the integer 3", "the function posix.system": for a message.
std::string describe(const Pickle& pickle, const PickleValue& value);

}  // namespace moelora
