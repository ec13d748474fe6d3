#include "lib/io/torch/pickle.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

using Role = PickleGlobal::Role;

constexpr std::array kAllowed = {
    PickleGlobal{"collections", "OrderedDict", Role::ordered_dict},
    PickleGlobal{"__builtin__", "set", Role::set},
    PickleGlobal{"builtins", "set", Role::set},
    PickleGlobal{"torch._utils", "_rebuild_tensor_v2", Role::tensor_v2},
    PickleGlobal{"torch._utils", "_rebuild_tensor_v3", Role::tensor_v3},
    PickleGlobal{"torch._utils", "_rebuild_parameter", Role::parameter},
    PickleGlobal{"torch", "FloatStorage", Role::storage, DType::F32},
    PickleGlobal{"torch", "DoubleStorage", Role::storage, DType::F64},
    PickleGlobal{"torch", "HalfStorage", Role::storage, DType::F16},
    PickleGlobal{"torch", "BFloat16Storage", Role::storage, DType::BF16},
    PickleGlobal{"torch", "ByteStorage", Role::storage, DType::U8},
    PickleGlobal{"torch", "CharStorage", Role::storage, DType::I8},
    PickleGlobal{"torch", "ShortStorage", Role::storage, DType::I16},
    PickleGlobal{"torch", "IntStorage", Role::storage, DType::I32},
    PickleGlobal{"torch", "LongStorage", Role::storage, DType::I64},
    PickleGlobal{"torch", "BoolStorage", Role::storage, DType::BOOL},
    PickleGlobal{"torch.storage", "UntypedStorage", Role::untyped_storage},
    PickleGlobal{"torch", "float32", Role::dtype, DType::F32},
    PickleGlobal{"torch", "float64", Role::dtype, DType::F64},
    PickleGlobal{"torch", "float16", Role::dtype, DType::F16},
    PickleGlobal{"torch", "bfloat16", Role::dtype, DType::BF16},
    PickleGlobal{"torch", "uint8", Role::dtype, DType::U8},
    PickleGlobal{"torch", "int8", Role::dtype, DType::I8},
    PickleGlobal{"torch", "int16", Role::dtype, DType::I16},
    PickleGlobal{"torch", "int32", Role::dtype, DType::I32},
    PickleGlobal{"torch", "int64", Role::dtype, DType::I64},
    PickleGlobal{"torch", "bool", Role::dtype, DType::BOOL},
    PickleGlobal{"torch", "uint16", Role::dtype, DType::U16},
    PickleGlobal{"torch", "uint32", Role::dtype, DType::U32},
    PickleGlobal{"torch", "uint64", Role::dtype, DType::U64},
    PickleGlobal{"torch", "complex64", Role::dtype, DType::C64},
    PickleGlobal{"torch", "float8_e4m3fn", Role::dtype, DType::F8_E4M3},
    PickleGlobal{"torch", "float8_e5m2", Role::dtype, DType::F8_E5M2},
    PickleGlobal{"torch", "float8_e4m3fnuz", Role::dtype, DType::F8_E4M3FNUZ},
    PickleGlobal{"torch", "float8_e5m2fnuz", Role::dtype, DType::F8_E5M2FNUZ},
    PickleGlobal{"torch", "float8_e8m0fnu", Role::dtype, DType::F8_E8M0},
    PickleGlobal{"torch", "Size", Role::size},
    PickleGlobal{"torch", "device", Role::device},
};

struct Unread {
  std::string_view module, name, kind;
};

constexpr std::array kUnread = {
    Unread{"torch._utils", "_rebuild_sparse_tensor", "a sparse tensor"},
    Unread{"torch._utils", "_rebuild_sparse_csr_tensor", "a sparse tensor"},
    Unread{"torch._utils", "_rebuild_nested_tensor", "a nested tensor"},
    Unread{"torch._utils", "_rebuild_qtensor", "a quantized tensor"},
    Unread{"torch._utils", "_rebuild_meta_tensor_no_storage", "a tensor without values (meta)"},
    Unread{"torch._utils", "_rebuild_wrapper_subclass", "a tensor of another class"},
    Unread{"torch._utils", "_rebuild_parameter_with_state", "a parameter with a state of its own"},
    Unread{"torch._utils", "_rebuild_device_tensor_from_numpy", "a tensor of another device"},
    Unread{"torch._utils", "_rebuild_device_tensor_from_cpu_tensor", "a tensor of another device"},
    Unread{"torch._tensor", "_rebuild_from_type_v2", "a tensor of another class"},
    Unread{"torch", "ComplexFloatStorage", "a complex tensor"},
    Unread{"torch", "ComplexDoubleStorage", "a complex tensor"},
    Unread{"torch", "QInt8Storage", "a quantized tensor"},
    Unread{"torch", "QUInt8Storage", "a quantized tensor"},
    Unread{"torch", "QInt32Storage", "a quantized tensor"},
};

template <class Table>
auto find_in(const Table& table, std::string_view module, std::string_view name) {
  return std::find_if(table.begin(), table.end(),
                      [&](const auto& row) { return row.name == name && row.module == module; });
}

}  // namespace

std::optional<size_t> find_pickle_global(std::string_view module, std::string_view name) {
  const auto it = find_in(kAllowed, module, name);
  if (it == kAllowed.end()) return std::nullopt;
  return static_cast<size_t>(it - kAllowed.begin());
}

const PickleGlobal& pickle_global(size_t index) { return kAllowed[index]; }

std::string_view unread_torch_kind(std::string_view module, std::string_view name) {
  const auto it = find_in(kUnread, module, name);
  return it == kUnread.end() ? std::string_view{} : it->kind;
}

double PickleValue::real() const { return std::bit_cast<double>(number); }

std::string describe(const Pickle& pickle, const PickleValue& value) {
  // In the order of Kind; "" where the value says more.
  constexpr std::array<std::string_view, 12> kNames = {"None", "",          "",         "",
                                                       "",     "a tuple",   "a list",   "a dict",
                                                       "",     "a storage", "a tensor", "a device"};
  switch (value.kind) {
    case PickleValue::Kind::boolean:
      return value.number != 0 ? "True" : "False";
    case PickleValue::Kind::integer:
      return fmt::format("the integer {}", value.number);
    case PickleValue::Kind::real:
      return fmt::format("the number {}", value.real());
    case PickleValue::Kind::text:
      return fmt::format("the string {}", in_quotes(pickle.texts[value.index()], 40));
    case PickleValue::Kind::global: {
      const PickleGlobal& g = pickle_global(value.index());
      return fmt::format("the name {}.{}", g.module, g.name);
    }
    default:
      return std::string(kNames[static_cast<size_t>(value.kind)]);
  }
}

}  // namespace moelora
