#include "lib/base/version.h"

namespace moelora {

std::string_view version() { return MOELORA_VERSION; }

}  // namespace moelora
