// Random octets, the same as numpy's default generator draws: `numpy.random.default_rng(seed)` is PCG64, seeded by a
// SeedSequence. Sources: O'Neill, PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random
// Number Generation (2014), and numpy's documentation of SeedSequence. With them the page draws what `select` draws.

const MASK = (1n << 128n) - 1n;
const MASK_64 = (1n << 64n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

/** The four 64-bit words that numpy's SeedSequence makes of an entropy of 32-bit words. */
function seedWords(entropy) {
  let constant = 0x43b0d7e5;
  const hashed = (value) => {
    value ^= constant;
    constant = Math.imul(constant, 0x931e8875);
    value = Math.imul(value, constant);
    return value ^ (value >>> 16);
  };
  const mixed = (x, y) => {
    const value = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0;
    return value ^ (value >>> 16);
  };
  const pool = [0, 1, 2, 3].map((i) => hashed(entropy[i] ?? 0));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mixed(pool[to], hashed(pool[from]));
  }
  let last = 0x8b51f9dd;
  const words = [];
  for (let i = 0; i < 8; i++) {
    let value = pool[i % 4] ^ last;
    last = Math.imul(last, 0x58f38ded);
    value = Math.imul(value, last);
    words.push(BigInt((value ^ (value >>> 16)) >>> 0));
  }
  return [0, 2, 4, 6].map((i) => words[i] | (words[i + 1] << 32n));
}

/** `count` octets of the generator that is seeded by at most four 32-bit words. */
export function randomBytes(entropy, count) {
  const [high, low, sequenceHigh, sequenceLow] = seedWords(entropy);
  const increment = ((((sequenceHigh << 64n) | sequenceLow) << 1n) | 1n) & MASK;
  let state = increment;
  state = ((state + ((high << 64n) | low)) * MULTIPLIER + increment) & MASK;
  const octets = new Uint8Array(Math.ceil(count / 8) * 8);
  const view = new DataView(octets.buffer);
  for (let i = 0; i < octets.length; i += 8) {
    state = (state * MULTIPLIER + increment) & MASK;
    const folded = (state >> 64n) ^ (state & MASK_64);
    const turn = state >> 122n;
    view.setBigUint64(i, ((folded >> turn) | (folded << (64n - turn))) & MASK_64, true);
  }
  return octets.subarray(0, count);
}
