/* The program that exec_static and exec_dynamic start: it does nothing but start and end. */
int main(int argc, char **argv)
{
    return argv[0][0] != '/' ? 1 : argc + 5;
}
