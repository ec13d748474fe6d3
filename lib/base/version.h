#pragma once

#include <string_view>

namespace moelora {

std::string_view version();  // "0.1.0"

}  // namespace moelora
