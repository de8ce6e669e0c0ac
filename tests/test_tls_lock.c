/* The tests of test_tls.c that use many connections and threads, with all
 * calls into mbedTLS taking turns, as in builds of it without threading. */
#define GPN_TLS_FORCE_LOCK
#define TEST_TLS_MANY 1
#include "test_tls.c"
