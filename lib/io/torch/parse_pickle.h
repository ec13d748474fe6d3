#pragma once

#include <string>
#include <string_view>

#include "lib/io/torch/pickle.h"

namespace moelora {

inline constexpr uint64_t kMaxPickleBytes = uint64_t{64} << 20;

// Reads the data.pkl of a torch.save archive: a pickle of protocol 2 that builds tuples, lists,
// dicts, numbers, texts and plain strided tensors. Nothing is imported, called or executed: a
// GLOBAL is looked up in a fixed list, REDUCE and BUILD know what each name of that list would
// make of its arguments. Opcodes that torch.save never writes, operands of the wrong type, views
// that leave their storage, and sizes above the limits are refused. Throws Error at "WHERE: byte N"
// with `hint`, or a warning instead where Python might run code. `bytes` must outlive the result.
Pickle parse_pickle(std::string_view bytes, const std::string& where, const std::string& hint = {});

}  // namespace moelora
