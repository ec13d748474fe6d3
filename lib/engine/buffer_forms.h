#pragma once

#include <span>
#include <string_view>

namespace moelora {

// What one rank of a server holds of an adapter, as files. No adapter can be read from it again:
// scales are folded in, ranks padded, and what the server loses is gone.
struct BufferForm {
  std::string_view id;      // --to: "sglang-pool"
  std::string_view engine;  // "sglang"
  // For the README's table.
  std::string_view names, shapes;
};

std::span<const BufferForm> buffer_forms();
const BufferForm* find_buffer_form(std::string_view id);  // null when unknown

}  // namespace moelora
