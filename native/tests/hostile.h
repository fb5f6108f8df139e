// Reads a file that may be anything, as the engine would: it is served, or refused with a reason.
#pragma once

#include <memory>
#include <string>

#include "backend.h"

namespace quarry::test {

struct Outcome {
    bool decodes = false;  // a Decoder was made, and fed three tokens
    bool embeds = false;   // a CausalEncoder was made, and encoded three tokens
    bool encodes = false;  // an Encoder was made, and encoded three tokens
    std::string refusal;   // what was said about what was not done, a line each
};

// Any exception but those that the headers promise passes through.
Outcome read_hostile(const std::string& path, const std::shared_ptr<Backend>& backend);

}  // namespace quarry::test
