#pragma once

#include <string>

#include "lib/adapter/convert.h"
#include "lib/compare/packed_check.h"

namespace moelora {

// How the stacked pairs of an adapter were read, for the packed check.
packed::Reading reading_of(const Adapter& adapter);

// Whether dense modules were cut or joined: those that were joined may have only their product in
// common with their parts.
bool joins_modules(const Conversion& conversion);

// The packed check (packed_check.h) as a Verifier: the written files against those at `in`, which
// are opened and read anew, so that nothing of the conversion is taken for granted but how `in`
// was told to be read (--base, --roles, --b-order); one that was made in memory has no `in`, and is
// compared with its tensors. Every element must be the source's by its bits and every scale the
// same double; where the adapter was fitted for an engine (Conversion::changes), scales may be
// folded into lora_B, products must be the same or, with a repair that rounds, within rounding, and
// only what was dropped may be missing. Counts factors, and pairs of which only the product is the
// same; throws Error naming the first fault.
Verifier packed_verifier(std::string in, int threads = 0);

}  // namespace moelora
